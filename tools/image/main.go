// Command image assembles the OCI image of taskgate from static binaries, without a container engine, and from scratch: the binary,
// the root certificates of Mozilla, and how names are resolved.
//
//	image -binary linux/amd64=PATH [-binary linux/arm64=PATH] -name REPOSITORY:VERSION -layout DIRECTORY [-tarball FILE]
//
// The layout is an index with one image for each binary. The tarball has the image of this machine's architecture, for tools that load
// images into a local cluster. The same binaries give the same digests: nothing in an image depends on the time, the user or the machine.
package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// The user of the process, which no system gives to a user of its own: the one of distroless images.
const user = "65532:65532"

type options struct {
	binaries        []string
	name            string
	layout, tarball string
	source          string
	revision        string
	created         int64
	dynamic         bool
}

func main() {
	var o options
	flag.Func("binary", "`PLATFORM=PATH` of a binary, such as linux/amd64=taskgate; repeat it for each platform", func(text string) error {
		o.binaries = append(o.binaries, text)
		return nil
	})
	flag.StringVar(&o.name, "name", "", "the `REPOSITORY:VERSION` of the image")
	flag.StringVar(&o.layout, "layout", "", "the `DIRECTORY` of the OCI layout; it is replaced")
	flag.StringVar(&o.tarball, "tarball", "", "also write the image of this architecture to `FILE`, as docker save does")
	flag.StringVar(&o.source, "source", "", "the `URL` of the source, for the labels")
	flag.StringVar(&o.revision, "revision", "", "the `COMMIT`, for the labels")
	flag.Int64Var(&o.created, "created", 0, "the time of the image and of its files, in `SECONDS` since 1970")
	flag.BoolVar(&o.dynamic, "dynamic", false, "accept a binary that needs shared libraries, which the image does not have: for tests")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

func run(o options) error {
	tag, err := name.NewTag(o.name, name.StrictValidation)
	if err != nil {
		return err
	}
	if len(o.binaries) == 0 || o.layout == "" || flag.NArg() > 0 {
		return errors.New("-binary and -layout are required, and nothing else (see -help)")
	}
	var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var local v1.Image
	for _, text := range o.binaries {
		platform, path, _ := strings.Cut(text, "=")
		system, architecture, _ := strings.Cut(platform, "/")
		if system != "linux" || architecture == "" || path == "" {
			return fmt.Errorf("-binary %s: not of the form linux/ARCHITECTURE=PATH", text)
		}
		image, err := assemble(o, tag, architecture, path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: system, Architecture: architecture}},
		})
		if architecture == runtime.GOARCH {
			local = image
		}
	}
	if err := write(o.layout, index); err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	if o.tarball != "" {
		if local == nil {
			return fmt.Errorf("-tarball: no binary is for %s", runtime.GOARCH)
		}
		if err := tarball.WriteToFile(o.tarball, tag, local); err != nil {
			return err
		}
	}
	fmt.Printf("%s@%s\n", tag, digest)
	return nil
}

// write replaces the layout, reads it back and validates it: every digest, size and media type.
func write(path string, index v1.ImageIndex) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	if _, err := layout.Write(path, index); err != nil {
		return err
	}
	written, err := layout.ImageIndexFromPath(path)
	if err != nil {
		return err
	}
	return validate.Index(written)
}

// assemble makes the image of one binary.
func assemble(o options, tag name.Tag, architecture, path string) (v1.Image, error) {
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := check(binary, architecture, o.dynamic); err != nil {
		return nil, err
	}
	created := time.Unix(o.created, 0).UTC()
	files, err := root(binary, created)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithMediaType(types.OCILayer),
	)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "taskgate, from scratch"},
	})
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", architecture
	file.Created = v1.Time{Time: created}
	file.Config = v1.Config{
		User:       user,
		Entrypoint: []string{"/taskgate"},
		WorkingDir: "/",
		Labels:     labels(o, tag, created),
	}
	return mutate.ConfigFile(image, file)
}

// labels are those of the OCI image specification.
func labels(o options, tag name.Tag, created time.Time) map[string]string {
	labels := map[string]string{
		"org.opencontainers.image.title":       "taskgate",
		"org.opencontainers.image.description": "Admission webhook and controller for clusters that run coding agents",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     tag.TagStr(),
		"org.opencontainers.image.created":     created.Format(time.RFC3339),
	}
	if o.source != "" {
		labels["org.opencontainers.image.source"] = o.source
	}
	if o.revision != "" {
		labels["org.opencontainers.image.revision"] = o.revision
	}
	return labels
}

// check refuses a binary that cannot run in an empty root, or not on its platform.
func check(binary []byte, architecture string, dynamic bool) error {
	file, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		return err
	}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	if machine, known := machines[architecture]; !known || machine != file.Machine {
		return fmt.Errorf("it is for %v, not for %s", file.Machine, architecture)
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP && !dynamic {
			return errors.New("it needs shared libraries: build it with `make binary`")
		}
	}
	return nil
}

// root is the only layer, a tar archive.
func root(binary []byte, created time.Time) ([]byte, error) {
	var certificates bytes.Buffer
	for root := range bundle.Roots() {
		// A file of certificates cannot express that a root is only trusted for certificates of before some date.
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&certificates, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, err
		}
	}
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for _, entry := range []struct {
		name    string
		mode    int64
		content []byte
	}{
		{"etc/", 0o755, nil},
		// As without the file, but the same for every C library.
		{"etc/nsswitch.conf", 0o644, []byte("hosts: files dns\n")},
		{"etc/ssl/", 0o755, nil},
		{"etc/ssl/certs/", 0o755, nil},
		{"etc/ssl/certs/ca-certificates.crt", 0o644, certificates.Bytes()},
		{"taskgate", 0o755, binary},
	} {
		header := &tar.Header{
			Name: entry.name, Mode: entry.mode, Size: int64(len(entry.content)), ModTime: created,
			Typeflag: tar.TypeReg, Format: tar.FormatUSTAR,
		}
		if strings.HasSuffix(entry.name, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(entry.content); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return archive.Bytes(), nil
}
