package main

func Example() {
	main()
	// Output:
	// put: commit 1; less than 64 KiB of log: true
	// read: 7000000 bytes in all; some of the middle: "frame. frame."
	// again: blobs 1, 7000000 bytes; removed 0
	// deleted: blobs 1, 7000000 bytes; removed 0
	// trimmed: blobs 0, 0 bytes; removed 1
}
