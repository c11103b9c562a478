package main

func Example() {
	main()
	// Output:
	// user 1 is ada: commit 1
	// user 2 is ada, too: refused, space users, key 2: the name is taken
	// user 1 is bea now: commit 2
	// user 2 is ada: commit 3
	// an account of user 1: commit 4
	// an account of user 7: refused, space accounts, key 7: there is no such user
	// 20 below zero: refused, space accounts, key 1: the balance would be below zero
	// user 1 goes: refused, space users, key 1: the user has an account
	// told of commits 1 2 3
}
