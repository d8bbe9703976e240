package durable_test

// fill is played on systems that can limit the size of files.
func fill(string) {}
