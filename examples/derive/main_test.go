package main

func Example() {
	main()
	// Output:
	// "Brno" 3
	// "Köln" 1
	// "Riga" 1
}
