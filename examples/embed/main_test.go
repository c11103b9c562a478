package main

func Example() {
	main()
	// Output:
	// commit 1 again 1
	// alice {"city":"Köln"}
	// in Brno ["Brno","bob"]
}
