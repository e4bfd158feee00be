// Command independent verifies what a log published, with the packages of Go's own checksum database.
//
// It reads a JSON array of cases from standard input and writes an array of the reasons why each does not hold: an empty text where it does.
// A case is a signed checkpoint with the key of its log, and any of: keys of witnesses that have to have cosigned it, leaves with inclusion
// proofs, an older checkpoint with a consistency proof, and a folder of tiles that has to give the same tree and the same proofs.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type testCase struct {
	Checkpoint  string      `json:"checkpoint"`
	VKey        string      `json:"vkey"`
	Witnesses   []string    `json:"witnesses"`
	Leaves      []leafCase  `json:"leaves"`
	Older       string      `json:"older"`
	Consistency []tlog.Hash `json:"consistency"`
	Tiles       string      `json:"tiles"`
}

type leafCase struct {
	Index int64       `json:"index"`
	Data  []byte      `json:"data"`
	Proof []tlog.Hash `json:"proof"`
}

func main() {
	var cases []testCase
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&cases); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	reasons := make([]string, len(cases))
	for i, c := range cases {
		if err := check(c); err != nil {
			reasons[i] = err.Error()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(reasons); err != nil {
		os.Exit(2)
	}
}

func check(c testCase) error {
	tree, err := openCheckpoint(c.Checkpoint, c.VKey, c.Witnesses)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	for _, leaf := range c.Leaves {
		if err := tlog.CheckRecord(leaf.Proof, tree.N, tree.Hash, leaf.Index, tlog.RecordHash(leaf.Data)); err != nil {
			return fmt.Errorf("inclusion: %w", err)
		}
	}
	var older tlog.Tree
	if c.Older != "" {
		if older, err = openCheckpoint(c.Older, c.VKey, nil); err != nil {
			return fmt.Errorf("older checkpoint: %w", err)
		}
		if err := tlog.CheckTree(c.Consistency, tree.N, tree.Hash, older.N, older.Hash); err != nil {
			return fmt.Errorf("consistency: %w", err)
		}
	}
	if c.Tiles != "" {
		if err := checkTiles(c, tree, older); err != nil {
			return fmt.Errorf("tiles: %w", err)
		}
	}
	return nil
}

// openCheckpoint verifies a checkpoint by the log's key and by each witness's, and returns the tree that it names.
func openCheckpoint(signed, vkey string, witnesses []string) (tlog.Tree, error) {
	log, err := note.NewVerifier(vkey)
	if err != nil {
		return tlog.Tree{}, err
	}
	known := []note.Verifier{log}
	for _, text := range witnesses {
		witness, err := newCosignatureVerifier(text)
		if err != nil {
			return tlog.Tree{}, err
		}
		known = append(known, witness)
	}
	opened, err := note.Open([]byte(signed), note.VerifierList(known...))
	if err != nil {
		return tlog.Tree{}, err
	}
	if len(opened.Sigs) != len(known) {
		return tlog.Tree{}, fmt.Errorf("%d of %d keys signed", len(opened.Sigs), len(known))
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != log.Name() || lines[3] != "" {
		return tlog.Tree{}, errors.New("the text is no checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return tlog.Tree{}, err
	}
	return tlog.Tree{N: size, Hash: root}, nil
}

// cosignatureVerifier implements note.Verifier for C2SP tlog-cosignature, which the package note does not know.
type cosignatureVerifier struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newCosignatureVerifier(vkey string) (*cosignatureVerifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("malformed key of a witness")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 4 {
		return nil, errors.New("malformed key of a witness")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	if hex.EncodeToString(sum[:4]) != parts[1] {
		return nil, errors.New("the ID of a witness's key is not that of the key")
	}
	return &cosignatureVerifier{parts[0], binary.BigEndian.Uint32(sum[:4]), key[1:]}, nil
}

func (v *cosignatureVerifier) Name() string    { return v.name }
func (v *cosignatureVerifier) KeyHash() uint32 { return v.hash }
func (v *cosignatureVerifier) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	head := fmt.Sprintf("cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(sig))
	return ed25519.Verify(v.key, append([]byte(head), msg...), sig[8:])
}

// tileFolder reads C2SP tiles from a folder, whose paths are Go's without the height.
type tileFolder string

func (d tileFolder) Height() int { return 8 }

func (d tileFolder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, tile := range tiles {
		path := filepath.Join(string(d), "tile", strings.TrimPrefix(tile.Path(), "tile/8/"))
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		data[i] = content
	}
	return data, nil
}

func (d tileFolder) SaveTiles([]tlog.Tile, [][]byte) {}

// checkTiles authenticates the tiles by the tree, makes all proofs from them anew, and compares; then it does the same with the entries.
func checkTiles(c testCase, tree, older tlog.Tree) error {
	reader := tlog.TileHashReader(tree, tileFolder(c.Tiles))
	for _, leaf := range c.Leaves {
		proof, err := tlog.ProveRecord(tree.N, leaf.Index, reader)
		if err != nil {
			return err
		}
		if len(proof)+len(leaf.Proof) > 0 && !reflect.DeepEqual([]tlog.Hash(proof), leaf.Proof) {
			return fmt.Errorf("the inclusion proof of leaf %d is another", leaf.Index)
		}
		entry, err := readEntry(c.Tiles, leaf.Index, tree.N)
		if err != nil {
			return err
		}
		if !bytes.Equal(entry, leaf.Data) {
			return fmt.Errorf("the entry of leaf %d is another", leaf.Index)
		}
	}
	if older.N > 0 {
		proof, err := tlog.ProveTree(tree.N, older.N, reader)
		if err != nil {
			return err
		}
		if len(proof)+len(c.Consistency) > 0 && !reflect.DeepEqual([]tlog.Hash(proof), c.Consistency) {
			return errors.New("the consistency proof is another")
		}
	}
	return nil
}

// readEntry returns a leaf from its bundle: each entry is preceded by its length in 16 bits.
func readEntry(folder string, index, size int64) ([]byte, error) {
	tile := tlog.Tile{H: 8, L: 0, N: index / 256, W: int(min(256, size-index/256*256))}
	path := filepath.Join(folder, "tile", "entries", strings.TrimPrefix(tile.Path(), "tile/8/0/"))
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for i := int64(0); ; i++ {
		if len(rest) < 2 || len(rest) < 2+int(binary.BigEndian.Uint16(rest)) {
			return nil, fmt.Errorf("the bundle %s is cut off", path)
		}
		length := 2 + int(binary.BigEndian.Uint16(rest))
		if i == index%256 {
			return rest[2:length], nil
		}
		rest = rest[length:]
	}
}
