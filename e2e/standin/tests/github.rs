//! The stub answers as GitHub does, where taskgate's source reader depends on it.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jiff::{SignedDuration, Timestamp};
use kelos_standin::{Fault, GitHub, Seed};
use serde_json::{Value, json};

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    fn numbers(&self) -> Vec<i64> {
        let issues = self.json();
        let issues = issues.as_array().into_iter().flatten();
        issues.filter_map(|issue| issue["number"].as_i64()).collect()
    }
}

async fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &Value) -> anyhow::Result<Answer> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.request(request.body(Full::from(body.to_string()))?).await?;
    let (head, body) = answer.into_parts();
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: body.collect().await?.to_bytes(),
    })
}

async fn get(github: &GitHub, path: &str) -> anyhow::Result<Answer> {
    send("GET", &format!("{}{path}", github.url()), &[], &Value::Null).await
}

#[tokio::test]
async fn an_unchanged_answer_is_304_and_costs_nothing() -> anyhow::Result<()> {
    let github = GitHub::start().await?;
    let issue = github.repo("o", "r").issue(42);
    issue.title("Crash").labels(["bug"]);
    let url = format!("{}/repos/o/r/issues/42", github.url());
    let first = send("GET", &url, &[], &Value::Null).await?;
    assert_eq!(first.status, StatusCode::OK);
    let tag = first.header("etag").to_owned();
    let known = [("if-none-match", tag.as_str()), ("user-agent", "test")];
    let second = send("GET", &url, &known, &Value::Null).await?;
    assert_eq!(second.status, StatusCode::NOT_MODIFIED);
    assert_eq!(
        first.header("x-ratelimit-remaining"),
        second.header("x-ratelimit-remaining")
    );
    issue.close();
    let third = send("GET", &url, &known, &Value::Null).await?;
    assert_eq!(third.status, StatusCode::OK);
    assert_eq!(third.json()["state"], "closed");
    let seen = github.seen();
    let log: Vec<_> = seen.iter().map(|s| (s.conditional, s.is_not_modified())).collect();
    assert_eq!(log, [(false, false), (true, true), (true, false)]);
    assert_eq!(seen[1].user_agent, "test");
    Ok(())
}

#[tokio::test]
async fn lists_are_filtered_and_paged() -> anyhow::Result<()> {
    let github = GitHub::start().await?;
    let repo = github.repo("o", "r");
    for number in 1..=5 {
        repo.issue(number).labels(["bug"]);
    }
    repo.issue(6).labels(["bug"]).close();
    repo.issue(7).author("ann").assignee("bob");
    repo.pull(8).labels(["bug"]);
    let first = get(&github, "/repos/o/r/issues?labels=bug&per_page=4").await?;
    assert_eq!(first.numbers(), [8, 5, 4, 3], "newest first, pull requests among them");
    let link = first.header("link").to_owned();
    let next = link.split('>').next().and_then(|part| part.strip_prefix('<'));
    let path = next.and_then(|url| url.strip_prefix(&github.url())).unwrap_or_default();
    let second = get(&github, path).await?;
    assert_eq!((second.numbers(), second.header("link")), (vec![2, 1], ""));
    assert_eq!(get(&github, "/repos/o/r/issues?creator=ann").await?.numbers(), [7]);
    for (assignee, found) in [("bob", 1), ("*", 1), ("none", 6), ("carl", 0)] {
        let path = format!("/repos/o/r/issues?assignee={assignee}");
        assert_eq!(get(&github, &path).await?.numbers().len(), found, "{assignee}");
    }
    assert_eq!(get(&github, "/repos/o/r/issues?state=closed").await?.numbers(), [6]);
    assert_eq!(get(&github, "/repos/o/r/pulls").await?.numbers(), [8]);
    assert_eq!(
        get(&github, "/api/v3/repos/o/r/issues/8").await?.json()["pull_request"]["url"],
        format!("{}/repos/o/r/pulls/8", github.url())
    );
    github.page_size(2);
    assert_eq!(get(&github, "/repos/o/r/issues?per_page=100").await?.numbers().len(), 2);
    for missing in [
        "/repos/o/r/issues/99",
        "/repos/o/r/pulls/1",
        "/repos/o/x/issues",
        "/nothing",
    ] {
        assert_eq!(get(&github, missing).await?.status, StatusCode::NOT_FOUND, "{missing}");
    }
    Ok(())
}

#[tokio::test]
async fn limits_and_faults_strike_as_told() -> anyhow::Result<()> {
    let github = GitHub::start().await?;
    github.repo("o", "r").issue(1).comment("ann", "hello");
    let reset = Timestamp::now() + SignedDuration::from_mins(10);
    github.rate_limit(1, reset);
    let last = get(&github, "/repos/o/r/issues").await?;
    assert_eq!(last.status, StatusCode::OK);
    let limited = get(&github, "/repos/o/r/issues").await?;
    assert_eq!(limited.status, StatusCode::FORBIDDEN);
    assert_eq!(limited.header("x-ratelimit-remaining"), "0");
    assert_eq!(limited.header("x-ratelimit-reset"), reset.as_second().to_string());
    let rate = get(&github, "/rate_limit").await?.json();
    assert_eq!(rate["rate"]["remaining"], 0);

    github.rate_limit(5000, reset);
    github.fault(Fault::status(500).on("/comments").times(1));
    let comments = "/repos/o/r/issues/1/comments";
    assert_eq!(get(&github, "/repos/o/r/issues").await?.status, StatusCode::OK);
    assert_eq!(get(&github, comments).await?.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(get(&github, comments).await?.json()[0]["body"], "hello");
    github.fault(Fault::secondary_limit(7));
    let secondary = get(&github, comments).await?;
    assert_eq!(
        (secondary.status, secondary.header("retry-after")),
        (StatusCode::FORBIDDEN, "7")
    );
    github.heal();
    github.fault(Fault::garbage().times(1));
    let garbage = get(&github, comments).await?;
    assert!(serde_json::from_slice::<Value>(&garbage.body).is_err());
    assert_eq!(get(&github, comments).await?.status, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn a_seed_fills_it_and_its_own_api_changes_it() -> anyhow::Result<()> {
    let github = GitHub::start().await?;
    let seed = "
repos:
- owner: o
  name: r
  permissions: {ann: write}
  issues:
  - {number: 42, title: Crash, labels: [bug], author: ann, comments: [{author: ann, body: /fix}]}
  - {number: 43, title: Old, closed: true}
  - {number: 44, title: Change, pull: true}
agents:
- {task: 'fixer-*', seconds: 5, succeeds: false}
";
    github.plant(&Seed::read(seed)?);
    assert_eq!(get(&github, "/repos/o/r/issues").await?.numbers(), [44, 42]);
    let permission = get(&github, "/repos/o/r/collaborators/ann/permission").await?;
    assert_eq!(permission.json()["permission"], "write");
    let url = format!("{}/repos/o/r/issues", github.url());
    let made = send("POST", &url, &[], &json!({"title": "New", "labels": ["bug"]})).await?;
    assert_eq!(
        (made.status, made.json()["number"].as_i64()),
        (StatusCode::CREATED, Some(45))
    );
    let closed = send("PATCH", &format!("{url}/42"), &[], &json!({"state": "closed"})).await?;
    assert_eq!(closed.json()["state"], "closed");
    let comment = send("POST", &format!("{url}/45/comments"), &[], &json!({"body": "/fix"})).await?;
    assert_eq!(comment.status, StatusCode::CREATED);
    let comments = get(&github, "/repos/o/r/issues/45/comments").await?;
    assert_eq!(comments.json()[0]["body"], "/fix");
    assert!(Seed::read("repo: []").is_err(), "a misspelt seed is no empty seed");
    Ok(())
}
