package main

func Example() {
	main()
	// Output:
	// "Brno" 3
	// "Köln" 2
}
