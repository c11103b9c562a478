package main

func Example() {
	main()
	// Output:
	// "Brno" 3
	// "Köln" 2
	// in a view: 3 users in Brno
}
