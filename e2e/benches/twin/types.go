package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
)

var (
	taskgate = schema.GroupVersion{Group: "taskgate.dev", Version: "v1alpha1"}
	tasks    = schema.GroupVersionKind{Group: "kelos.dev", Version: "v1alpha2", Kind: "Task"}
	scheme   = runtime.NewScheme()
)

func init() {
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		panic(err)
	}
	scheme.AddKnownTypes(taskgate, &WorkItem{}, &WorkItemList{}, &TaskPolicy{}, &TaskPolicyList{})
	metav1.AddToGroupVersion(scheme, taskgate)
}

// WorkItem has the fields that its watchers need.
type WorkItem struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Key     string `json:"key"`
		Item    string `json:"item"`
		Spawner string `json:"spawner"`
	} `json:"spec"`
	Status WorkItemStatus `json:"status"`
}

// WorkItemStatus is the state of an item.
type WorkItemStatus struct {
	Breaker             string      `json:"breaker"`
	ConsecutiveFailures int         `json:"consecutiveFailures"`
	LastFailureTime     metav1.Time `json:"lastFailureTime"`
	OpenedAt            metav1.Time `json:"openedAt"`
	Reason              string      `json:"reason"`
	TotalCostUSD        string      `json:"totalCostUSD"`
	Attempts            []Attempt   `json:"attempts"`
}

// Attempt is one Task of an item.
type Attempt struct {
	UID            string      `json:"uid"`
	Outcome        string      `json:"outcome"`
	CompletionTime metav1.Time `json:"completionTime"`
	CostUSD        string      `json:"costUSD"`
	InputTokens    int64       `json:"inputTokens"`
	OutputTokens   int64       `json:"outputTokens"`
}

// WorkItemList is a list of WorkItems.
type WorkItemList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []WorkItem `json:"items"`
}

// TaskPolicy has the fields that decide about a Job's queue and a Task's limit.
type TaskPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		QueueName     string `json:"queueName"`
		FailurePolicy *struct {
			MaxRetriesPerItem int `json:"maxRetriesPerItem"`
		} `json:"failurePolicy"`
	} `json:"spec"`
}

// TaskPolicyList is a list of TaskPolicies.
type TaskPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []TaskPolicy `json:"items"`
}

// DeepCopyObject copies what a reader could change.
func (w *WorkItem) DeepCopyObject() runtime.Object {
	c := *w
	c.ObjectMeta = *w.ObjectMeta.DeepCopy()
	c.Status.Attempts = append([]Attempt(nil), w.Status.Attempts...)
	return &c
}

// DeepCopyObject copies what a reader could change.
func (p *TaskPolicy) DeepCopyObject() runtime.Object {
	c := *p
	c.ObjectMeta = *p.ObjectMeta.DeepCopy()
	if limit := p.Spec.FailurePolicy; limit != nil {
		copied := *limit
		c.Spec.FailurePolicy = &copied
	}
	return &c
}

// DeepCopyObject copies the list; its objects are shared.
func (l *WorkItemList) DeepCopyObject() runtime.Object { c := *l; return &c }

// DeepCopyObject copies the list; its objects are shared.
func (l *TaskPolicyList) DeepCopyObject() runtime.Object { c := *l; return &c }
