//! Starting, parking, waking.

use serde_json::json;

use crate::support::TestHost;

#[tokio::test]
async fn a_parked_instance_keeps_its_memory() {
    let host = TestHost::start().await;
    let counter = host.deploy("counter", "guest-probe", json!({"freezeAfterMs": 0})).await;
    let first = counter.script(json!(["count"])).await;
    assert_eq!(first.results(), json!([1]));
    assert_eq!(first.start(), "cold");
    counter.reaches("parked").await;
    let second = counter.script(json!(["count"])).await;
    assert_eq!(second.results(), json!([2]));
    assert_eq!(second.start(), "parked");
}
