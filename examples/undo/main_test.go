package main

func Example() {
	main()
	// Output:
	// written: Roses are read violets
	// ada's undo: Roses violets
	// ada's redo: Roses are read violets
	// ada's undo: bob has changed line 2 since
	// bob's undo, then ada's: Roses violets
	// a bad deployment: BUY NOW
	// as it was: Roses violets
	// back again: BUY NOW
	// commit 6: line 2 was "are read", became "are red"
	// line 2, commit 8: deleted
	// line 2, commit 7: "are read"
	// line 2, commit 6: "are red"
	// line 2, commit 5: "are read"
	// line 2, commit 4: deleted
	// line 2, commit 2: "are read"
}
