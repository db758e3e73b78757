package inproc

// stackRoom is what a handler's goroutine needs at least, server chain, span and log line included:
// its stack is then 8 KiB.
const stackRoom = 5 << 10

// grow makes room on the stack of a new goroutine at once. By itself the stack would double again
// and again while the call goes down the chain, and each time all frames would be moved, which took
// a fourth of the time of a call.
//
//go:noinline
func grow(use byte) byte { //nolint:unparam // what it returns only keeps the frame
	if use == 0 {
		return 0 // it is the frame of this function that counts
	}
	var room [stackRoom]byte
	for i := range room {
		room[i] = use
	}
	return room[use]
}
