package main

import (
	"context"
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const recordedKey = "bench/recorded"

// control records each failed Task, the first of its item, with the three writes that cannot be saved: the WorkItem, its status with
// the attempt, and the Task, so that it is not recorded again.
func control(ctx context.Context, config *rest.Config) error {
	m, err := manager.New(config, manager.Options{
		Scheme:  scheme,
		Client:  client.Options{Cache: &client.CacheOptions{Unstructured: true}},
		Metrics: metricsserver.Options{BindAddress: "0"},
	})
	if err != nil {
		return err
	}
	task := &unstructured.Unstructured{}
	task.SetGroupVersionKind(tasks)
	err = builder.ControllerManagedBy(m).Named("failures").For(task).
		WithOptions(controller.Options{MaxConcurrentReconciles: 16}).
		Complete(recorder{m.GetClient()})
	if err != nil {
		return err
	}
	return m.Start(ctx)
}

type recorder struct{ client.Client }

func (r recorder) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	return reconcile.Result{}, client.IgnoreNotFound(r.record(ctx, request.NamespacedName))
}

func (r recorder) record(ctx context.Context, key types.NamespacedName) error {
	task := &unstructured.Unstructured{}
	task.SetGroupVersionKind(tasks)
	if err := r.Get(ctx, key, task); err != nil {
		return err
	}
	phase, _, _ := unstructured.NestedString(task.Object, "status", "phase")
	name := task.GetAnnotations()[itemKey]
	if phase != "Failed" || name == "" || task.GetAnnotations()[recordedKey] != "" {
		return nil
	}
	item := &WorkItem{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: name}}
	item.Spec.Key, item.Spec.Item = name, name
	if err := r.Create(ctx, item); err != nil {
		return err
	}
	attempt := map[string]any{"uid": task.GetUID(), "name": key.Name, "outcome": "Failed"}
	status := map[string]any{"consecutiveFailures": 1, "attempts": []any{attempt}}
	if err := r.Status().Patch(ctx, item, merge(map[string]any{"status": status})); err != nil {
		return err
	}
	metadata := map[string]any{"annotations": map[string]any{recordedKey: "true"}, "finalizers": nil}
	return r.Patch(ctx, task, merge(map[string]any{"metadata": metadata}))
}

func merge(patch any) client.Patch {
	raw, err := json.Marshal(patch)
	if err != nil {
		panic(err)
	}
	return client.RawPatch(types.MergePatchType, raw)
}
