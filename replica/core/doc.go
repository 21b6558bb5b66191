// Package core holds the decisions of the data path as pure code: which branch of the history a node holds, what is
// committed, who is in the in-sync set, what may be removed from a copy, where a takeover begins, and what comes next in a
// planned switch-over. It sees headers, runs and the role state, never a journal, a store, a lock or a clock; package
// replica does the work around it, and the simulator does it with disks and a network of its own.
package core
