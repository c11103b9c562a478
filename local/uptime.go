package local

import "crypto/rand"

// processName names this process where there is no name of the run of the machine.
var processName = rand.Text()
