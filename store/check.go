//go:build !js

package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// The format of bbolt's files, as far as a look through one takes it. A file is pages
// of the same size, of which the first two are metas: each transaction writes the one
// that is not its predecessor's. The meta with the larger number leads to a tree of
// pages. Numbers are in the machine's order, as bbolt maps the file into memory.
//
// https://github.com/etcd-io/bbolt/blob/v1.5.0/internal/common/page.go
// https://github.com/etcd-io/bbolt/blob/v1.5.0/internal/common/meta.go
const (
	pageHeader = 16 // id 8, flags 2, count 2, overflow 4
	element    = 16 // of a branch: pos 4, key size 4, page 8; of a leaf: flags 4, pos 4, key size 4, value size 4

	branchPage = 0x01
	leafPage   = 0x02
	metaPage   = 0x04

	metaLen     = 64 // magic 4, version 4, page size 4, flags 4, root 8, sequence 8, free list 8, pages 8, transaction 8, checksum 8
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	noFreelist  = ^uint64(0)

	bucketFlag   = 0x01
	bucketHeader = 16 // root page 8, sequence 8; then, when there is no root page, the page

	// maxDepth bounds a tree: each level but the last has two elements or more, and
	// there are not 2^32 pages.
	maxDepth = 32
	// maxOverflow is how many pages more than one a page can take: a root of the largest
	// records, which are far from this.
	maxOverflow = 64 << 20 / pageSize
)

var order = binary.NativeEndian

// A checker looks through a file. It trusts nothing that it reads.
type checker struct {
	file  io.ReaderAt
	pages uint64 // in use
	seen  map[uint64]bool
	found header // what there is
	said  header // what the file says there is
	top   bool   // the tree of buckets, not that of records
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// sound tells whether a file of so many bytes is as it was written.
func sound(file io.ReaderAt, size int64) error {
	if size < 4*pageSize || size > MaxFile {
		return damaged("it has %d bytes", size)
	}
	first, err := readMeta(file, 0)
	if err != nil {
		return err
	}
	second, err := readMeta(file, 1)
	if err != nil {
		return err
	}
	m := first
	if second.transaction > first.transaction {
		m = second
	}
	if m.pages > uint64(size)/pageSize {
		return damaged("it is cut off: it has %d bytes, and should have %d at least", size, m.pages*pageSize)
	}
	c := &checker{file: file, pages: m.pages, seen: make(map[uint64]bool), top: true}
	bucket, err := c.onlyBucket(m.root)
	if err != nil {
		return err
	}
	c.top = false
	if root := order.Uint64(bucket); root != 0 {
		_, err = c.tree(root, nil, nil, 0)
	} else {
		_, err = c.leaf(bucket[bucketHeader:], nil, nil)
	}
	if err != nil {
		return err
	}
	if c.said.version == 0 {
		return damaged("there is no header")
	}
	if c.found.version = c.said.version; c.found != c.said {
		return damaged("there are %d records and should be %d, or their checksum is wrong", c.found.records, c.said.records)
	}
	return nil
}

type meta struct{ root, pages, transaction uint64 }

func readMeta(file io.ReaderAt, n uint64) (meta, error) {
	b := make([]byte, pageHeader+metaLen)
	if _, err := file.ReadAt(b, int64(n*pageSize)); err != nil {
		return meta{}, fmt.Errorf("store: %w", err)
	}
	if order.Uint64(b) != n || order.Uint16(b[8:]) != metaPage {
		return meta{}, damaged("page %d is not a meta page", n)
	}
	b = b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(b[:metaLen-8])
	switch {
	case order.Uint32(b) != metaMagic:
		return meta{}, damaged("page %d is not of a bbolt database that this machine wrote", n)
	case order.Uint64(b[metaLen-8:]) != sum.Sum64():
		return meta{}, damaged("the checksum of page %d is wrong", n)
	case order.Uint32(b[4:]) != metaVersion:
		return meta{}, fmt.Errorf("%w: of bbolt: the file has version %d, and this program reads %d", ErrNewer, order.Uint32(b[4:]), metaVersion)
	case order.Uint32(b[8:]) != pageSize || order.Uint64(b[32:]) != noFreelist:
		return meta{}, damaged("it is a bbolt database, but not one that this package made")
	}
	return meta{root: order.Uint64(b[16:]), pages: order.Uint64(b[40:]), transaction: order.Uint64(b[48:])}, nil
}

// onlyBucket finds the one bucket that is in a file, in the page that lists them.
func (c *checker) onlyBucket(page uint64) ([]byte, error) {
	b, err := c.page(page)
	if err != nil {
		return nil, err
	}
	if order.Uint16(b[8:]) != leafPage || order.Uint16(b[10:]) != 1 {
		return nil, damaged("page %d does not list one bucket", page)
	}
	flags, key, value, err := leafElement(b, 0)
	if err != nil {
		return nil, err
	}
	if flags != bucketFlag || !bytes.Equal(key, bucketName) || len(value) < bucketHeader {
		return nil, damaged("page %d does not list the bucket %q", page, bucketName)
	}
	if order.Uint64(value) != 0 {
		if len(value) != bucketHeader {
			return nil, damaged("the bucket in page %d has %d bytes", page, len(value))
		}
	} else if len(value) < bucketHeader+pageHeader || order.Uint16(value[bucketHeader+8:]) != leafPage {
		return nil, damaged("page %d lists a bucket that has no records", page)
	}
	return value, nil
}

// page reads a page, with what overflows it.
func (c *checker) page(id uint64) ([]byte, error) {
	if id < 2 || id >= c.pages {
		return nil, damaged("page %d, to which another leads, does not exist", id)
	}
	b := make([]byte, pageSize)
	if _, err := c.file.ReadAt(b, int64(id*pageSize)); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	more := uint64(order.Uint32(b[12:]))
	if order.Uint64(b) != id || more > maxOverflow || id+more >= c.pages {
		return nil, damaged("the head of page %d is wrong", id)
	}
	for i := range more + 1 {
		if c.seen[id+i] {
			return nil, damaged("page %d is in two places", id+i)
		}
		c.seen[id+i] = true
	}
	if more > 0 {
		b = append(b, make([]byte, more*pageSize)...)
		if _, err := c.file.ReadAt(b[pageSize:], int64((id+1)*pageSize)); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	return b, nil
}

// tree looks through the pages below one, whose keys are from low, if that is not nil,
// up to high, and returns the first key.
func (c *checker) tree(id uint64, low, high []byte, depth int) (first []byte, err error) {
	if depth > maxDepth {
		return nil, damaged("page %d is %d pages deep", id, depth)
	}
	b, err := c.page(id)
	if err != nil {
		return nil, err
	}
	switch order.Uint16(b[8:]) {
	case leafPage:
		return c.leaf(b, low, high)
	case branchPage:
	default:
		return nil, damaged("page %d is neither branch nor leaf", id)
	}
	count := int(order.Uint16(b[10:]))
	if count == 0 {
		return nil, damaged("branch page %d is empty", id)
	}
	key, child, err := branchElement(b, 0)
	for i := 0; i < count && err == nil; i++ {
		below := high
		next, nextChild := []byte(nil), uint64(0)
		if i+1 < count {
			if next, nextChild, err = branchElement(b, i+1); err != nil {
				break
			}
			below = next
		}
		var begin []byte
		if begin, err = c.tree(child, low, below, depth+1); err != nil {
			break
		}
		if !bytes.Equal(begin, key) {
			err = damaged("page %d does not begin where page %d says", child, id)
		}
		if i == 0 {
			first = begin
		}
		low, key, child = next, next, nextChild
	}
	return first, err
}

// leaf looks through the records of a page.
func (c *checker) leaf(b, low, high []byte) (first []byte, err error) {
	count := int(order.Uint16(b[10:]))
	if count == 0 {
		return nil, damaged("leaf page %d is empty", order.Uint64(b))
	}
	var last []byte
	for i := range count {
		flags, key, value, err := leafElement(b, i)
		if err != nil {
			return nil, err
		}
		switch {
		case flags != 0 || len(key) == 0 || len(key) > MaxKey || len(value) > MaxValue:
			return nil, damaged("a record of page %d is none of this package", order.Uint64(b))
		case i > 0 && bytes.Compare(last, key) >= 0, i == 0 && bytes.Compare(key, low) < 0, high != nil && bytes.Compare(key, high) >= 0:
			return nil, damaged("the keys of page %d are not in order", order.Uint64(b))
		}
		if i == 0 {
			first = key
		}
		last = key
		if !bytes.Equal(key, headerKey) {
			c.found.add(key, value)
		} else if c.said, err = decodeHeader(value); err != nil {
			return nil, err
		}
	}
	return first, nil
}

func branchElement(b []byte, i int) (key []byte, child uint64, err error) {
	at := pageHeader + i*element
	if at+element > len(b) {
		return nil, 0, damaged("page %d has more elements than fit", order.Uint64(b))
	}
	e := b[at:]
	key, err = part(b, at, order.Uint32(e), 0, order.Uint32(e[4:]))
	return key, order.Uint64(e[8:]), err
}

func leafElement(b []byte, i int) (flags uint32, key, value []byte, err error) {
	at := pageHeader + i*element
	if at+element > len(b) {
		return 0, nil, nil, damaged("page %d has more elements than fit", order.Uint64(b))
	}
	e := b[at:]
	pos, keyLen := order.Uint32(e[4:]), order.Uint32(e[8:])
	if key, err = part(b, at, pos, 0, keyLen); err == nil {
		value, err = part(b, at, pos, keyLen, order.Uint32(e[12:]))
	}
	return order.Uint32(e), key, value, err
}

// part is n bytes of a page, skip and pos from the element at.
func part(b []byte, at int, pos, skip, n uint32) ([]byte, error) {
	begin := uint64(at) + uint64(pos) + uint64(skip)
	if end := begin + uint64(n); end <= uint64(len(b)) {
		return b[begin:end:end], nil
	}
	return nil, damaged("an element of page %d is outside of it", order.Uint64(b))
}
