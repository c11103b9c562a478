package main

func Example() {
	main()
	// Output:
	// first follower: commit 1 put 1 = order 1
	// first follower: commit 2 put 2 = order 2
	// second follower: commit 3 put 3 = order 3
	// second follower: commit 4 put 4 = order 4
	// second follower: commit 5 put 5 = order 5
}
