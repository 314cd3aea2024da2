package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"gomodules.xyz/jsonpatch/v2"
	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const (
	queueLabel    = "kueue.x-k8s.io/queue-name"
	itemKey       = "taskgate.dev/item"
	workItemLabel = "bench/work-item"
)

// serve answers admission reviews:
//
//	/null       allows
//	/constant   suspends a Job and sets its queue, without a look at it
//	/job        the same, if it belongs to a Task in a namespace whose TaskPolicy has a queue
//	/task       labels a Task of an item with its WorkItem
//	/limit      refuses a Task whose item failed as often as the TaskPolicy allows
func serve(ctx context.Context, config *rest.Config, port int, certificates string) error {
	m, err := manager.New(config, manager.Options{
		Scheme:        scheme,
		WebhookServer: webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: port, CertDir: certificates}),
		Metrics:       metricsserver.Options{BindAddress: "0"},
	})
	if err != nil {
		return err
	}
	task := &metav1.PartialObjectMetadata{}
	task.SetGroupVersionKind(tasks)
	// From the start, so that no review waits for a list.
	for _, kind := range []client.Object{task, &WorkItem{}, &TaskPolicy{}} {
		if _, err := m.GetCache().GetInformer(ctx, kind); err != nil {
			return err
		}
	}
	server := m.GetWebhookServer()
	d := decider{reader: m.GetClient(), decoder: admission.NewDecoder(scheme)}
	for path, handle := range map[string]admission.HandlerFunc{
		"/null":     func(context.Context, admission.Request) admission.Response { return admission.Allowed("") },
		"/constant": func(context.Context, admission.Request) admission.Response { return constant },
		"/job":      d.job,
		"/task":     d.task,
		"/limit":    d.limit,
	} {
		server.Register(path, &admission.Webhook{Handler: handle})
	}
	server.WebhookMux().HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		if !m.GetCache().WaitForCacheSync(r.Context()) {
			http.Error(w, "not synced", http.StatusServiceUnavailable)
		}
	})
	return m.Start(ctx)
}

// constant is one answer for all.
var constant = admission.Patched("",
	jsonpatch.NewOperation("add", "/spec/suspend", true),
	jsonpatch.NewOperation("add", "/metadata/labels/kueue.x-k8s.io~1queue-name", "agents"),
)

// decider decides from the caches of a manager.
type decider struct {
	reader  client.Reader
	decoder admission.Decoder
}

// policy is the TaskPolicy of a namespace, if it has one.
func (d decider) policy(ctx context.Context, namespace string) (*TaskPolicy, error) {
	policies := TaskPolicyList{}
	if err := d.reader.List(ctx, &policies, client.InNamespace(namespace)); err != nil || len(policies.Items) == 0 {
		return nil, err
	}
	return &policies.Items[0], nil
}

func (d decider) job(ctx context.Context, request admission.Request) admission.Response {
	job := batchv1.Job{}
	if err := d.decoder.Decode(request, &job); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	owner := metav1.GetControllerOf(&job)
	if owner == nil || owner.Kind != tasks.Kind {
		return admission.Allowed("")
	}
	task := &metav1.PartialObjectMetadata{}
	task.SetGroupVersionKind(tasks)
	err := d.reader.Get(ctx, client.ObjectKey{Namespace: request.Namespace, Name: owner.Name}, task)
	if client.IgnoreNotFound(err) != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	policy, policyErr := d.policy(ctx, request.Namespace)
	if policyErr != nil {
		return admission.Errored(http.StatusInternalServerError, policyErr)
	}
	if err != nil || task.UID != owner.UID || policy == nil || policy.Spec.QueueName == "" {
		return admission.Allowed("")
	}
	suspend := true
	job.Spec.Suspend = &suspend
	metav1.SetMetaDataLabel(&job.ObjectMeta, queueLabel, policy.Spec.QueueName)
	return patched(request, &job)
}

func patched(request admission.Request, changed any) admission.Response {
	raw, err := json.Marshal(changed)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(request.Object.Raw, raw)
}

func (d decider) task(_ context.Context, request admission.Request) admission.Response {
	task := unstructured.Unstructured{}
	if err := task.UnmarshalJSON(request.Object.Raw); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	item := task.GetAnnotations()[itemKey]
	if item == "" {
		return admission.Allowed("")
	}
	labels := task.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[workItemLabel] = item
	task.SetLabels(labels)
	return patched(request, &task)
}

func (d decider) limit(ctx context.Context, request admission.Request) admission.Response {
	task := metav1.PartialObjectMetadata{}
	if err := json.Unmarshal(request.Object.Raw, &task); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	policy, err := d.policy(ctx, request.Namespace)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	if policy == nil || policy.Spec.FailurePolicy == nil {
		return admission.Allowed("")
	}
	item := WorkItem{}
	err = d.reader.Get(ctx, client.ObjectKey{Namespace: request.Namespace, Name: task.Annotations[itemKey]}, &item)
	if apierrors.IsNotFound(err) {
		return admission.Allowed("")
	}
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	if limit := policy.Spec.FailurePolicy.MaxRetriesPerItem; item.Status.ConsecutiveFailures > limit {
		return admission.Denied(fmt.Sprintf("item %s failed %d times", item.Name, item.Status.ConsecutiveFailures))
	}
	return admission.Allowed("")
}
