// Package journal keeps a journal on disk as a chain of receivers.
package journal
