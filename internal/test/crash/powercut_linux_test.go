package crash

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// TestPowerCut forgets, each time the bank is killed, what SQLite had written and not synced. With the
// driver's settings nothing comes of it. With synchronous=NORMAL events are out whose transactions never
// were: the test of the test.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for _, broken := range []string{"", normal} {
		t.Run("broken="+broken, func(t *testing.T) {
			t.Parallel()
			s := openSite(t, shapes()[0], 1, map[string]string{"broken": broken})
			s.run("ledger", "ledger", nil, nil)
			bank := s.run("writer", "bank", map[string]string{"writers": "4", "pause": "5ms"},
				func() { s.cut(filepath.Join(s.dir, "bank.db")) }, cutDisk+"=1")
			for begun := time.Now(); s.bytes("bank.db"+durable) == 0 && time.Since(begun) < liveness; {
				<-time.After(50 * time.Millisecond) // this process must not be the first to open it
			}
			b := s.books(false)
			s.warm(b)
			_ = b.bank.Close() // it would see files that are exchanged
			for range 8 {
				<-time.After(time.Duration(1000+s.random.IntN(1000)) * time.Millisecond)
				bank.kill()
			}
			<-time.After(time.Second)
			s.halt()
			b = s.books(false)
			if broken == "" {
				s.finish(b, liveness)
				s.report(s.record(b), time.Now(), time.Now())
				return
			}
			s.still(b.ledger)
			found := Check(s.record(b))
			t.Logf("%d kills; ghosts %d, order breaks %d", s.kills.Load(), len(found[Ghosts]), len(found[Order]))
			if len(found[Ghosts]) == 0 {
				t.Errorf("synchronous is NORMAL, and the checker has found no ghosts: %v", found)
			}
		})
	}
}

const (
	cutDisk = "KAPTAR_TEST_CRASH_DISK" // for the program: keep what is synced beside each file
	durable = "-durable"
)

// cut puts files as they were synced into the place of those that were written.
func (s *site) cut(database string) {
	for _, name := range []string{database, database + "-wal"} {
		err := os.Remove(name)
		text, readErr := os.ReadFile(name + durable)
		if readErr == nil {
			err = os.WriteFile(name, text, 0o600)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.t.Error(err)
		}
	}
	if err := os.Remove(database + "-shm"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Error(err)
	}
}

// A disk keeps a copy of each file of SQLite with what was synced alone.
type disk struct {
	mu      sync.Mutex
	open    func(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32
	files   map[uintptr]handle
	pending map[string][]write // by path
	own     map[uintptr]*sqlite3.Tsqlite3_io_methods
}

type handle struct {
	path    string
	methods *sqlite3.Tsqlite3_io_methods // SQLite's
}

// A write is one that was not synced yet; with nil it sets the length.
type write struct {
	at   int64
	data []byte
}

var theDisk = disk{files: map[uintptr]handle{}, pending: map[string][]write{}, own: map[uintptr]*sqlite3.Tsqlite3_io_methods{}}

func init() {
	if os.Getenv(cutDisk) == "" {
		return
	}
	vfs := at[sqlite3.Tsqlite3_vfs](sqlite3.Xsqlite3_vfs_find(libc.NewTLS(), 0))
	theDisk.open = *(*func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32)(unsafe.Pointer(&vfs.FxOpen))
	vfs.FxOpen = pointer(diskOpen)
}

// at is what is at an address outside of Go's heap.
func at[T any](address uintptr) *T { return *(**T)(unsafe.Pointer(&address)) }

// pointer is a function of a package as translated C has it.
func pointer[T any](f T) uintptr { return *(*uintptr)(unsafe.Pointer(&struct{ f T }{f})) }

func diskOpen(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32 {
	rc := theDisk.open(tls, vfs, name, file, flags, out)
	f := at[sqlite3.Tsqlite3_file](file)
	if rc != sqlite3.SQLITE_OK || name == 0 || f.FpMethods == 0 {
		return rc
	}
	theDisk.mu.Lock()
	defer theDisk.mu.Unlock()
	theDisk.files[file] = handle{libc.GoString(name), at[sqlite3.Tsqlite3_io_methods](f.FpMethods)}
	own := theDisk.own[f.FpMethods]
	if own == nil {
		methods := *at[sqlite3.Tsqlite3_io_methods](f.FpMethods)
		own = &methods
		own.FxWrite, own.FxTruncate, own.FxSync, own.FxClose = pointer(diskWrite), pointer(diskTruncate), pointer(diskSync), pointer(diskClose)
		theDisk.own[f.FpMethods] = own
	}
	f.FpMethods = uintptr(unsafe.Pointer(own))
	return rc
}

// note adds to what is not synced.
func (d *disk) note(file uintptr, w write) handle {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.files[file]
	d.pending[h.path] = append(d.pending[h.path], w)
	return h
}

func diskWrite(tls *libc.TLS, file, buf uintptr, n int32, offset sqlite3.Tsqlite3_int64) int32 {
	h := theDisk.note(file, write{offset, []byte(strings.Clone(unsafe.String(at[byte](buf), n)))})
	return (*(*func(*libc.TLS, uintptr, uintptr, int32, sqlite3.Tsqlite3_int64) int32)(unsafe.Pointer(&h.methods.FxWrite)))(tls, file, buf, n, offset)
}

func diskTruncate(tls *libc.TLS, file uintptr, size sqlite3.Tsqlite3_int64) int32 {
	h := theDisk.note(file, write{size, nil})
	return (*(*func(*libc.TLS, uintptr, sqlite3.Tsqlite3_int64) int32)(unsafe.Pointer(&h.methods.FxTruncate)))(tls, file, size)
}

func diskClose(tls *libc.TLS, file uintptr) int32 {
	theDisk.mu.Lock()
	h := theDisk.files[file]
	delete(theDisk.files, file)
	theDisk.mu.Unlock()
	return (*(*func(*libc.TLS, uintptr) int32)(unsafe.Pointer(&h.methods.FxClose)))(tls, file)
}

// diskSync does for the copy what was done to the file.
func diskSync(_ *libc.TLS, file uintptr, _ int32) int32 {
	theDisk.mu.Lock()
	defer theDisk.mu.Unlock()
	path := theDisk.files[file].path
	kept, err := os.OpenFile(path+durable, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return sqlite3.SQLITE_IOERR_FSYNC
	}
	defer kept.Close()
	for _, w := range theDisk.pending[path] {
		if w.data == nil {
			err = errors.Join(err, kept.Truncate(w.at))
			continue
		}
		_, failed := kept.WriteAt(w.data, w.at)
		err = errors.Join(err, failed)
	}
	delete(theDisk.pending, path)
	if err != nil {
		return sqlite3.SQLITE_IOERR_FSYNC
	}
	return sqlite3.SQLITE_OK
}
