//! Spans, made when what they tell of has ended. Attributes have the names of OpenTelemetry's semantic conventions where these
//! have one; the others begin with `dormouse.`.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::Method;
use opentelemetry::trace::{Link, SpanContext, SpanKind, Status, TraceState};
use opentelemetry::{KeyValue, SpanId, TraceFlags, TraceId};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{Parent, Trace, TraceContext, new_span, new_trace};
use crate::clock;
use crate::ids::{FunctionName, InstanceId, RequestId};

/// Requests that a hook's span is linked to at most.
const LINKS_MAX: usize = 32;

/// How much of a path or of an error is in a span: collectors refuse large ones, with all others that came with them.
const TEXT_BYTES_MAX: usize = 1024;

/// A request's span, from when its call begins. It is sent when this is dropped.
#[derive(Debug)]
pub struct OpenSpan {
    /// The span of the handler.
    handler: Parent,
    id: SpanId,
    parent: Option<SpanId>,
    function: FunctionName,
    began: SystemTime,
    course: Course,
}

/// What is known of a request when it has ended.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// The request.
    pub request: Option<RequestId>,
    /// The version that was asked to answer.
    pub version: String,
    /// What let it run: `http`, `timer` or `other`.
    pub trigger: &'static str,
    /// Which attempt at the request this is, from 1.
    pub attempt: u32,
    /// The method and the path, of a request of HTTP.
    pub asked: Option<(Method, String)>,
    /// When it was accepted; none: it was refused.
    pub accepted: Option<SystemTime>,
    /// Waiting for an instance.
    pub queue: Duration,
    /// From the assigned instance to the handler's call.
    pub start: Duration,
    /// In the handler.
    pub handler: Duration,
    /// Executed time of the instance meanwhile.
    pub executed: Duration,
    /// `cold`, `parked` or `active`: how it found its instance.
    pub found: &'static str,
    /// The instance, if it got one.
    pub instance: Option<InstanceId>,
    /// The status of the answer, of a request of HTTP.
    pub status: Option<u16>,
    /// `ok`, or the code of the problem.
    pub code: &'static str,
}

impl OpenSpan {
    pub(super) fn new(handler: Parent, parent: Option<SpanId>, function: &FunctionName, began: SystemTime) -> OpenSpan {
        let course = Course { code: "instance-lost", ..Course::default() };
        OpenSpan { handler, id: new_span(), parent, function: function.clone(), began, course }
    }

    /// What is known of the request, to be filled in.
    pub fn course(&mut self) -> &mut Course {
        &mut self.course
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let Course { accepted, queue, start, handler, found, instance, code, .. } = self.course;
        let of_request = Parent { span: self.id, ..self.handler.clone() };
        if let Some(accepted) = accepted {
            of_request.send(new_span(), "queue", (accepted, queue), Vec::new());
            let assigned = accepted + queue;
            let began = assigned + start;
            if instance.is_some() {
                match found {
                    "cold" => of_request.send(new_span(), "start", (assigned, start), Vec::new()),
                    "parked" => of_request.send(new_span(), "thaw", (assigned, start), Vec::new()),
                    _ => {}
                }
                let executed = self.course.executed.as_secs_f64() * 1000.0;
                let attributes = vec![KeyValue::new("dormouse.executed_ms", executed)];
                of_request.send(self.handler.span, "handler", (began, handler), attributes);
            }
        }
        let status = if code == "ok" { Status::Unset } else { Status::error(code) };
        let span = SpanData {
            parent_span_id: self.parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: self.parent.is_some(),
            span_kind: SpanKind::Server,
            attributes: self.attributes(),
            status,
            ..of_request.data(self.id, self.function.to_string().into(), (self.began, clock::date()))
        };
        self.handler.sender.send(span);
    }
}

impl OpenSpan {
    fn attributes(&mut self) -> Vec<KeyValue> {
        let course = std::mem::take(&mut self.course);
        let mut attributes = vec![
            KeyValue::new("faas.trigger", course.trigger),
            KeyValue::new("faas.version", course.version),
            KeyValue::new("dormouse.function", self.function.to_string()),
            KeyValue::new("dormouse.code", course.code),
            KeyValue::new("dormouse.attempt", i64::from(course.attempt)),
        ];
        let mut add = |name: &'static str, value: Option<String>| {
            attributes.extend(value.map(|value| KeyValue::new(name, value)));
        };
        add("faas.invocation_id", course.request.map(|request| request.to_string()));
        add("faas.instance", course.instance.map(|instance| instance.to_string()));
        add("error.type", (course.code != "ok").then(|| course.code.to_owned()));
        if let Some((method, path)) = course.asked {
            add("http.request.method", Some(method.to_string()));
            add("url.path", Some(shown(path)));
        }
        attributes.extend(course.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
        if course.instance.is_some() {
            attributes.push(KeyValue::new("faas.coldstart", course.found == "cold"));
            attributes.push(KeyValue::new("dormouse.start", course.found));
        }
        attributes
    }
}

/// The sampled requests that a hook follows.
#[derive(Debug, Default)]
pub struct Followed(Option<Box<Links>>);

#[derive(Debug)]
struct Links {
    /// Of one of them.
    parent: Parent,
    spans: Vec<(TraceId, SpanId)>,
}

impl Followed {
    /// One more; beyond a bound it is left out.
    pub fn add(&mut self, span: &OpenSpan) {
        let new = || Box::new(Links { parent: span.handler.clone(), spans: Vec::new() });
        let links = self.0.get_or_insert_with(new);
        if links.spans.len() < LINKS_MAX {
            links.spans.push((span.handler.trace, span.id));
        }
    }

    /// Begins the span of a hook; there is none if none of the requests is sampled.
    pub fn hook(
        &self,
        hook: &'static str,
        function: &FunctionName,
        (instance, request): (InstanceId, &RequestId),
    ) -> Option<HookSpan> {
        let Links { parent, spans } = &**self.0.as_ref()?;
        let attributes = vec![
            KeyValue::new("dormouse.function", function.to_string()),
            KeyValue::new("faas.instance", instance.to_string()),
            KeyValue::new("faas.invocation_id", request.to_string()),
        ];
        let own = Parent { trace: new_trace(), span: new_span(), ..parent.clone() };
        Some(HookSpan { own, hook, attributes, began: clock::date(), links: spans.clone(), failure: None })
    }
}

/// The span of a hook, in a trace of its own. It is sent when this is dropped.
#[derive(Debug)]
pub struct HookSpan {
    own: Parent,
    hook: &'static str,
    attributes: Vec<KeyValue>,
    began: SystemTime,
    links: Vec<(TraceId, SpanId)>,
    failure: Option<&'static str>,
}

impl HookSpan {
    /// What the hook's own requests continue.
    pub fn trace(&self) -> Trace {
        let context = TraceContext::of(self.own.trace, self.own.span, None);
        Trace { context: Some(context), parent: Some(self.own.clone()), is_left_out: false }
    }

    /// The hook failed: `failed`, `timed-out` or `crashed`.
    pub fn fail(&mut self, failure: &'static str) {
        self.failure = Some(failure);
    }
}

impl Drop for HookSpan {
    fn drop(&mut self) {
        let mut links = SpanLinks::default();
        links.links.extend(self.links.iter().map(|(trace, span)| Link::with_context(sampled(*trace, *span))));
        let mut attributes = std::mem::take(&mut self.attributes);
        attributes.extend(self.failure.map(|failure| KeyValue::new("error.type", failure)));
        let span = SpanData {
            attributes,
            links,
            status: self.failure.map_or(Status::Unset, Status::error),
            ..self.own.data(self.own.span, self.hook.into(), (self.began, clock::date()))
        };
        self.own.sender.send(span);
    }
}

/// The span of an outgoing request. It is sent when this is dropped.
#[derive(Debug)]
pub struct Outgoing {
    parent: Parent,
    id: SpanId,
    began: SystemTime,
    method: Method,
    attributes: Vec<KeyValue>,
    failure: Option<Cow<'static, str>>,
}

impl Parent {
    /// Begins the span of a request that is sent to `host`.
    pub fn outgoing(&self, method: &Method, (host, port): (&str, u16), path: &str) -> Outgoing {
        let attributes = vec![
            KeyValue::new("http.request.method", method.to_string()),
            KeyValue::new("server.address", shown(host.to_owned())),
            KeyValue::new("server.port", i64::from(port)),
            KeyValue::new("url.path", shown(path.to_owned())),
        ];
        let (parent, method) = (self.clone(), method.clone());
        Outgoing { parent, id: new_span(), began: clock::date(), method, attributes, failure: None }
    }

    /// Sends the span of a part of what this is the span of.
    fn send(&self, id: SpanId, name: &'static str, (began, time): (SystemTime, Duration), attributes: Vec<KeyValue>) {
        let span =
            SpanData { parent_span_id: self.span, attributes, ..self.data(id, name.into(), (began, began + time)) };
        self.sender.send(span);
    }

    /// A span without a parent, inside of the host.
    fn data(&self, id: SpanId, name: Cow<'static, str>, (start_time, end_time): (SystemTime, SystemTime)) -> SpanData {
        SpanData {
            span_context: sampled(self.trace, id),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name,
            start_time,
            end_time,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.sender.scope(),
        }
    }
}

impl Outgoing {
    /// What the request says in its field `traceparent`.
    pub fn context(&self) -> TraceContext {
        TraceContext::of(self.parent.trace, self.id, None)
    }

    /// The request was answered.
    pub fn answered(&mut self, status: u16) {
        self.attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 400 {
            self.failure = Some(status.to_string().into());
        }
    }

    /// The request was not answered.
    pub fn failed(&mut self, why: String) {
        self.failure = Some(shown(why).into());
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut attributes = std::mem::take(&mut self.attributes);
        let status = match self.failure.take() {
            None => Status::Unset,
            Some(why) => {
                attributes.push(KeyValue::new("error.type", why.to_string()));
                Status::error(why)
            }
        };
        let span = SpanData {
            parent_span_id: self.parent.span,
            span_kind: SpanKind::Client,
            attributes,
            status,
            ..self.parent.data(self.id, self.method.to_string().into(), (self.began, clock::date()))
        };
        self.parent.sender.send(span);
    }
}

fn shown(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

fn sampled(trace: TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Traces;
    use super::super::export::Sender;
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// What was sent while `work` had traces.
    fn sent(work: impl FnOnce(&Traces)) -> Vec<SpanData> {
        let (sender, collected) = Sender::for_tests(1.0);
        let sender = Arc::new(sender);
        work(&Traces(Some(sender.clone())));
        sender.flush();
        collected.0.lock().unwrap().clone()
    }

    fn named<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
        spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:?}"))
    }

    #[test]
    fn the_parts_of_a_request_follow_each_other_below_it() {
        let accepted = clock::date();
        let spans = sent(|traces| {
            let (trace, open) = traces.begin(None, &"f".parse().unwrap(), clock::date());
            let mut open = open.unwrap();
            *open.course() = Course {
                accepted: Some(accepted),
                queue: MS(1),
                start: MS(2),
                handler: MS(30),
                found: "parked",
                instance: Some(InstanceId::from_u64(1)),
                code: "ok",
                ..Course::default()
            };
            let path = "/é".repeat(10_000);
            let mut outgoing = trace.parent.unwrap().outgoing(&Method::GET, ("example.com", 80), &path);
            outgoing.answered(404);
        });
        let request = named(&spans, "f");
        let parts = ["queue", "thaw", "handler"].map(|name| named(&spans, name));
        let mut at = accepted;
        for (part, time) in parts.into_iter().zip([1, 2, 30]) {
            assert_eq!(part.parent_span_id, request.span_context.span_id());
            assert_eq!((part.start_time, part.end_time), (at, at + MS(time)));
            at += MS(time);
        }
        let outgoing = named(&spans, "GET");
        assert_eq!(outgoing.parent_span_id, named(&spans, "handler").span_context.span_id());
        let path = outgoing.attributes.iter().find(|pair| pair.key.as_str() == "url.path").unwrap();
        assert!(path.value.as_str().len() <= TEXT_BYTES_MAX, "long paths are cut");
        assert_eq!((&outgoing.span_kind, &outgoing.status), (&SpanKind::Client, &Status::error("404")));
        assert!(spans.iter().all(|span| span.span_context.trace_id() == request.span_context.trace_id()));
        assert_eq!((spans.len(), &request.status), (5, &Status::Unset));
    }

    #[test]
    fn a_request_that_was_refused_has_no_parts() {
        let spans = sent(|traces| {
            let (_, open) = traces.begin(None, &"f".parse().unwrap(), clock::date());
            open.unwrap().course().code = "function-busy";
        });
        assert_eq!(spans.len(), 1);
        assert_eq!(named(&spans, "f").status, Status::error("function-busy"));
    }

    #[test]
    fn a_hook_is_linked_to_the_requests_that_it_follows_in_a_trace_of_its_own() {
        let mut requests = Vec::new();
        let spans = sent(|traces| {
            let mut followed = Followed::default();
            let of = (InstanceId::from_u64(1), &RequestId::new());
            assert!(followed.hook("pre-stop", &"f".parse().unwrap(), of).is_none(), "there is nothing to follow");
            for _ in 0..LINKS_MAX + 2 {
                let (_, open) = traces.begin(None, &"f".parse().unwrap(), clock::date());
                let open = open.unwrap();
                followed.add(&open);
                requests.push(open.id);
            }
            let mut hook = followed.hook("pre-freeze", &"f".parse().unwrap(), of).unwrap();
            assert!(hook.trace().context.unwrap().is_sampled());
            hook.fail("timed-out");
        });
        let hook = named(&spans, "pre-freeze");
        assert_eq!(
            hook.links.iter().map(|link| link.span_context.span_id()).collect::<Vec<_>>(),
            requests[..LINKS_MAX]
        );
        assert_eq!((hook.parent_span_id, &hook.status), (SpanId::INVALID, &Status::error("timed-out")));
        let is_own = |span: &&SpanData| span.span_context.trace_id() == hook.span_context.trace_id();
        assert_eq!(spans.iter().filter(is_own).count(), 1);
    }
}
