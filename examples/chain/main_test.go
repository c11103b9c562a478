package main

func Example() {
	main()
	// Output:
	// load: commit 1; 0 keys before it, 100000 after
	// copy: it is the source at the id before its own: true
	// move: all keys moved: true; left behind: 0
	// tail: one commit, chained: true; a put for each key: true; range deletes: 1
}
