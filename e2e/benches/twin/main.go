// Twin is what taskgate is measured against: the same work as a Go program would do it.
//
//	twin webhooks --port 9443 --certificates directory   admission webhooks, see webhooks.go
//	twin informer                                        how long an informer of WorkItems takes to be synced
//
// Both read the API server that KUBECONFIG names.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	log.SetLogger(logr.Discard())
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if len(os.Args) < 2 {
		return fmt.Errorf("usage: twin webhooks|informer [flags]")
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	config.UserAgent = "twin"
	// As taskgate: the API server's own limits are enough.
	config.QPS = -1
	switch os.Args[1] {
	case "informer":
		return inform(ctx, config)
	case "webhooks":
		flags := flag.NewFlagSet("webhooks", flag.ExitOnError)
		port := flags.Int("port", 9443, "the port to serve at")
		certificates := flags.String("certificates", "", "the directory of tls.crt and tls.key")
		if err := flags.Parse(os.Args[2:]); err != nil {
			return err
		}
		return serve(ctx, config, *port, *certificates)
	default:
		return fmt.Errorf("unknown command %q", os.Args[1])
	}
}

// inform fills a cache of all WorkItems, as a controller would, and prints after how many seconds it was synced. It then stays,
// so that its memory can be read.
func inform(ctx context.Context, config *rest.Config) error {
	began := time.Now()
	items, err := cache.New(config, cache.Options{Scheme: scheme, DefaultTransform: cache.TransformStripManagedFields()})
	if err != nil {
		return err
	}
	if _, err := items.GetInformer(ctx, &WorkItem{}, cache.BlockUntilSynced(false)); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- items.Start(ctx) }()
	if !items.WaitForCacheSync(ctx) {
		return fmt.Errorf("the cache is not synced: %w", <-failed)
	}
	fmt.Println(time.Since(began).Seconds())
	return <-failed
}
