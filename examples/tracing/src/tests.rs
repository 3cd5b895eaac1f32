use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use dormouse_sdk::{
    http::Response,
    testing::{Instance, answer_http, block_on},
};
use serde_json::Value;

#[test]
fn spans_wait_for_a_collector_that_is_away() {
    let status = Rc::new(Cell::new(503));
    let batches = Rc::new(RefCell::new(Vec::new()));
    let (answer, received) = (status.clone(), batches.clone());
    answer_http(move |request| {
        let batch: Value = serde_json::from_slice(&request.body)?;
        received.borrow_mut().push(batch.pointer("/resourceSpans/0/scopeSpans/0/spans").cloned().unwrap_or_default());
        Ok(Response::new(answer.get(), "{}"))
    });

    let tracing = Instance::<super::Tracing>::default();
    block_on(async {
        let trace = tracing.invoke("first").await.unwrap();
        assert_eq!(trace.len(), 32);
        tracing.pre_freeze().await;
        tracing.invoke("second").await.unwrap();
        status.set(200);
        tracing.pre_freeze().await;
        tracing.pre_stop().await; // Nothing is left to send.
    });

    let names = |batch: &Value| batch.as_array().unwrap().iter().map(|span| span["name"].clone()).collect::<Vec<_>>();
    let batches = batches.borrow().iter().map(names).collect::<Vec<_>>();
    assert_eq!(batches, [vec!["first"], vec!["first", "second"]]);
}
