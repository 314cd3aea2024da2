//! From a request to an answer: faults, rate limit, pages, `ETag`, log.

use super::Shared;
use super::fault::Kind;
use super::routes::{Content, Query, content};
use super::state::{GitHubState, Seen};
use axum::body::{Body, Bytes};
use axum::extract::{Query as Parsed, State};
use axum::response::Response;
use http::header::{AUTHORIZATION, ETAG, HeaderMap, IF_NONE_MATCH, LINK, RETRY_AFTER, USER_AGENT};
use http::response::Builder;
use http::{Method, StatusCode, Uri};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

/// GitHub's default page size.
const PER_PAGE: usize = 30;

/// Every request comes here.
pub(super) async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    Parsed(query): Parsed<Query>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let agent = header(USER_AGENT).unwrap_or_default();
    let fault = {
        let mut state = shared.lock();
        let mut faults = state.faults.iter_mut();
        let fault = faults.find_map(|f| f.strikes(uri.path(), agent).then(|| f.kind.clone()));
        fault.filter(|_| uri.path() != "/rate_limit")
    };
    if let Some(Kind::Delay(delay)) = fault {
        tokio::time::sleep(delay).await;
    }
    let known = header(IF_NONE_MATCH);
    let mut state = shared.lock();
    let response = match fault {
        None | Some(Kind::Delay(_)) if state.remaining == 0 && uri.path() != "/rate_limit" => limited(&state),
        None | Some(Kind::Delay(_)) => {
            let found = content(&mut state, &method, uri.path(), &query, &body);
            show(&mut state, found, &uri, &query, known)
        }
        Some(Kind::Status(code)) => {
            let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            refuse(builder(&state, code), "fault on request")
        }
        Some(Kind::RateLimited { reset_in }) => {
            let reset = reset_in.map_or(state.reset, |reset_in| Timestamp::now() + reset_in);
            let (left, until) = (
                std::mem::replace(&mut state.remaining, 0),
                std::mem::replace(&mut state.reset, reset),
            );
            let response = limited(&state);
            (state.remaining, state.reset) = (left, until);
            response
        }
        Some(Kind::SecondaryLimit { retry_after }) => refuse(
            builder(&state, StatusCode::FORBIDDEN).header(RETRY_AFTER, retry_after),
            "You have exceeded a secondary rate limit",
        ),
        Some(Kind::Garbage) => finish(builder(&state, StatusCode::OK), Body::from("<html>oops")),
    };
    state.seen.push(Seen {
        method,
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        conditional: known.is_some(),
        authorized: headers.contains_key(AUTHORIZATION),
        user_agent: agent.to_owned(),
        status: response.status().as_u16(),
    });
    response
}

fn show(state: &mut GitHubState, content: Content, uri: &Uri, query: &Query, known: Option<&str>) -> Response {
    let status = content.status();
    let (value, link) = match content {
        Content::One(value) | Content::Made(value) => (value, None),
        Content::Many(values) => page(state, &values, uri, query),
        Content::Missing => return refuse(builder(state, status), "Not Found"),
        Content::Unprocessable(why) => return refuse(builder(state, status), &why),
    };
    let text = value.to_string();
    let digest = digest(&SHA256, text.as_bytes());
    let tag = format!(
        "W/\"{:x}\"",
        u128::from_be_bytes(digest.as_ref().first_chunk().copied().unwrap_or_default())
    );
    if known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag)) {
        // Costs nothing of the rate limit, as at GitHub.
        let unchanged = builder(state, StatusCode::NOT_MODIFIED).header(ETAG, tag);
        return finish(unchanged, Body::empty());
    }
    if uri.path() != "/rate_limit" {
        state.remaining = state.remaining.saturating_sub(1);
    }
    let mut answer = builder(state, status).header(ETAG, tag);
    if let Some(link) = link {
        answer = answer.header(LINK, link);
    }
    finish(answer, Body::from(text))
}

fn page(state: &GitHubState, values: &[Value], uri: &Uri, query: &Query) -> (Value, Option<String>) {
    let number = |key: &str| query.get(key).and_then(|text| text.parse::<usize>().ok());
    let size = number("per_page").unwrap_or(PER_PAGE).clamp(1, state.page_size);
    let page = number("page").unwrap_or(1).max(1);
    let pages = values.len().div_ceil(size).max(1);
    let shown = values.iter().skip((page - 1) * size).take(size);
    let url = |page: usize| {
        let kept = uri.query().unwrap_or_default().split('&');
        let kept = kept.filter(|pair| !pair.is_empty() && !pair.starts_with("page="));
        let pairs: Vec<String> = kept.map(str::to_owned).chain([format!("page={page}")]).collect();
        format!("{}{}?{}", state.base, uri.path(), pairs.join("&"))
    };
    let link = (page < pages).then(|| {
        let (next, last) = (url(page + 1), url(pages));
        format!("<{next}>; rel=\"next\", <{last}>; rel=\"last\"")
    });
    (Value::Array(shown.cloned().collect()), link)
}

fn limited(state: &GitHubState) -> Response {
    refuse(builder(state, StatusCode::FORBIDDEN), "API rate limit exceeded")
}

fn refuse(builder: Builder, message: &str) -> Response {
    finish(builder, Body::from(json!({"message": message}).to_string()))
}

fn builder(state: &GitHubState, status: StatusCode) -> Builder {
    Response::builder()
        .status(status)
        .header("content-type", "application/json; charset=utf-8")
        .header("x-ratelimit-limit", state.limit)
        .header("x-ratelimit-remaining", state.remaining)
        .header("x-ratelimit-reset", state.reset.as_second())
        .header("x-ratelimit-used", state.limit.saturating_sub(state.remaining))
        .header("cache-control", "private, max-age=60, s-maxage=60")
}

fn finish(builder: Builder, body: Body) -> Response {
    builder
        .body(body)
        .expect("header values are numbers and printable ASCII")
}
