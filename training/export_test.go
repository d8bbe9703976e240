package training

import "time"

// SetPatience sets how long the packer measures before it believes that packing
// does not pay.
func SetPatience(s *Supervisor, d time.Duration) { s.patience = d }
