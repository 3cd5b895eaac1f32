//! Aliases that move: who asks after a move gets the new version, and a kill in the middle leaves whole ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::text::Small;
use tokio::time::sleep;

use crate::support::{Reply, TestHost};

const MOVES: u64 = 40;

/// A request to the admin plane about the function `f`.
async fn ask(client: &reqwest::Client, method: &str, url: String, body: Value) -> reqwest::Result<Reply> {
    let request = client.request(method.parse().unwrap(), url);
    let request = if body.is_null() { request } else { request.json(&body) };
    Ok(Reply::of(request.send().await?).await)
}

/// Changes the function `f`, publishes it and lets `prod` name the new version. Returns that version.
async fn change_publish_move(client: &reqwest::Client, admin: &str, memory_mb: u64) -> reqwest::Result<u64> {
    let base = format!("{admin}/v1/functions/f");
    let reply = ask(client, "PATCH", base.clone(), json!({"memoryMb": memory_mb})).await?;
    assert_eq!(reply.status, 200, "{reply:?}");
    let reply = ask(client, "POST", format!("{base}/versions"), Value::Null).await?;
    assert_eq!(reply.status, 201, "{reply:?}");
    let version = reply.json()["version"].as_str().unwrap().to_owned();
    let reply = ask(client, "PUT", format!("{base}/aliases/prod"), json!({"version": version})).await?;
    assert!(matches!(reply.status, 200 | 201), "{reply:?}");
    Ok(version.parse().unwrap())
}

#[tokio::test]
async fn whoever_asks_after_a_move_gets_the_version_that_it_named() {
    let host = TestHost::start().await;
    let probe = host.deploy("f", "guest-probe", json!({})).await;
    for number in 0..MOVES {
        let version = change_publish_move(&host.client, &host.admin, 64 + number).await.unwrap();
        let script = json!({"do": ["context"]}).to_string();
        // Two at once, so that one finds an instance that is there and one starts another.
        let [first, second] = [(); 2].map(|()| probe.request_to("prod", script.clone()).send());
        let (first, second) = tokio::join!(first, second);
        for reply in [first, second] {
            let seen = Reply::of(reply.unwrap()).await.results()[0].clone();
            assert_eq!(seen["version"], version.to_string());
            assert_eq!(seen["memoryMb"], 64 + number, "the code and the settings of that version: {seen}");
        }
    }
}

#[tokio::test]
async fn a_kill_in_the_middle_of_publishing_and_moving_leaves_whole_versions_and_aliases() {
    let mut host = TestHost::start().await;
    assert_eq!(host.put_code("f", Small::PLAIN.component(), &json!({})).await.status, 201);
    let acknowledged = Arc::new(AtomicU64::new(0));
    for round in 0..8 {
        let (client, admin, newest) = (host.client.clone(), host.admin.clone(), acknowledged.clone());
        let working = tokio::spawn(async move {
            for step in 0.. {
                match change_publish_move(&client, &admin, 64 + (round * 1000 + step) % 4000).await {
                    Ok(version) => newest.store(version, Ordering::Relaxed),
                    Err(_) => return, // It was killed.
                }
            }
        });
        sleep(Duration::from_millis(100 + 7 * round)).await;
        host = host.kill_and_restart().await;
        working.await.unwrap();
        let list = host.get("/v1/functions/f/versions").await.json();
        let mut numbers: Vec<u64> = list["versions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|version| version["version"].as_str().unwrap().parse().unwrap())
            .collect();
        numbers.sort_unstable();
        let count = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "a number was used twice: {list}");
        let newest = acknowledged.load(Ordering::Relaxed);
        assert!(newest > 0 && numbers.contains(&newest), "{newest} was acknowledged: {numbers:?}");
        let prod = host.get("/v1/functions/f/aliases/prod").await.json();
        let named: u64 = prod["version"].as_str().unwrap().parse().unwrap();
        assert!(named >= newest && numbers.contains(&named), "{prod} after {newest}, of {numbers:?}");
        let request = host.function("f").request_to("prod", "");
        assert_eq!(Reply::of(request.send().await.unwrap()).await.status, 200);
    }
}
