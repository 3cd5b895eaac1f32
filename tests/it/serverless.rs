//! Files of Serverless Devs, and folders that were written for Function Compute's runtimes of Python and Node.js: built,
//! deployed and run as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Reply, TestHost, TestServer, Up, dormouse, dormouse_with_tools, eventually};

/// A copy of an example, to be changed.
fn example(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = tests::repository().join("examples").join(name);
    for file in ["s.yaml", "code/index.js", "code/index.py", "code/settings.py"] {
        if from.join(file).exists() {
            write(folder.path(), file, &fs::read_to_string(from.join(file)).unwrap());
        }
    }
    folder
}

fn write(folder: &Path, file: &str, text: &str) {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Changes a file; what is replaced must be there.
fn change(folder: &Path, file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(folder.join(file)).unwrap();
    assert!(text.contains(from), "{file} has no {from:?}");
    fs::write(folder.join(file), text.replace(from, to)).unwrap();
}

/// Runs a command of the program against a host, in a folder.
async fn run(host: &TestHost, folder: &Path, arguments: &[&str]) -> (bool, String, String) {
    let mut command = dormouse_with_tools();
    command.args(arguments).current_dir(folder);
    let output = command.env("DORMOUSE_ADMIN", &host.admin).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Deploys the `s.yaml` of a folder; what was said meanwhile.
async fn deploy(host: &TestHost, folder: &Path) -> String {
    let (done, _, said) = run(host, folder, &["deploy", "-t", "s.yaml"]).await;
    assert!(done, "{said}");
    said
}

/// What a deployment that fails says.
async fn refused(host: &TestHost, folder: &Path) -> String {
    let (done, _, said) = run(host, folder, &["deploy", "-t", "s.yaml"]).await;
    assert!(!done, "{said}");
    said
}

async fn reply(host: &TestHost, name: &str, event: &'static str) -> String {
    let reply = host.function(name).invoke(event).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.text()
}

async fn parked(host: &TestHost, name: &str) {
    eventually("it is parked", async || {
        let all = host.get(&format!("/v1/functions/{name}/instances")).await.json();
        let instances = all["instances"].as_array().unwrap();
        let are_parked = !instances.is_empty() && instances.iter().all(|instance| instance["state"] == "parked");
        are_parked.then_some(()).ok_or_else(|| all.to_string())
    })
    .await;
}

/// The lines that a function wrote.
async fn lines(host: &TestHost, name: &str) -> Vec<Value> {
    let logs = host.get(&format!("/v1/functions/{name}/logs")).await.json();
    let lines = logs["lines"].as_array().unwrap().iter().filter(|line| line["stream"] != "host");
    lines.cloned().collect()
}

/// What Function Compute's API answers to a call.
async fn called(host: &TestHost, path: &str, event: &'static str) -> Reply {
    let url = format!("{}{path}/invocations", host.admin);
    Reply::of(host.client.post(url).body(event).send().await.unwrap()).await
}

#[tokio::test]
async fn a_counter_in_nodejs_shows_which_hooks_ran() {
    let (host, folder) = (TestHost::start().await, example("function-compute-nodejs"));
    deploy(&host, folder.path()).await;
    let name = "counters.counter";
    let shown = host.get(&format!("/v1/functions/{name}")).await.json();
    assert_eq!(shown["billingBasis"], "duration");
    assert_eq!(reply(&host, name, "").await, "2");
    parked(&host, name).await;
    assert_eq!(reply(&host, name, "").await, "5", "preFreeze ran between the two");
    parked(&host, name).await;

    // Left out of an update: it stays. The same code is not deployed again.
    change(
        folder.path(),
        "s.yaml",
        "          preFreeze:\n            handler: index.preFreeze\n            timeout: 30\n",
        "",
    );
    deploy(&host, folder.path()).await;
    let after = host.get(&format!("/v1/functions/{name}")).await.json();
    assert_eq!(after["lifecycle"]["preFreeze"], shown["lifecycle"]["preFreeze"]);
    reply(&host, name, "").await;

    // An empty handler disables it.
    let disabled = "        instanceLifecycleConfig:\n          preFreeze: {handler: '', timeout: 1}\n";
    change(folder.path(), "s.yaml", "        instanceLifecycleConfig:\n", disabled);
    deploy(&host, folder.path()).await;
    assert_eq!(reply(&host, name, "").await, "2", "another instance");
    parked(&host, name).await;
    assert_eq!(reply(&host, name, "").await, "4", "nothing ran between the two");

    let path = "/2016-08-15/services/counters/functions/counter";
    let failed = called(&host, path, "fail").await;
    assert_eq!((failed.status, failed.header("x-fc-error-type")), (200, "HandledInvocationError"));
    let told = failed.json();
    assert_eq!((&told["errorMessage"], &told["errorType"]), (&json!("told to fail"), &json!("Error")));
    assert!(told["stackTrace"][0].as_str().unwrap().contains("/code/index.js:14"), "{told}");
}

#[tokio::test]
async fn a_function_in_python_logs_in_its_handler_and_before_it_is_stopped() {
    let (host, folder) = (TestHost::start().await, example("function-compute-python"));
    deploy(&host, folder.path()).await;
    let greeted = json!({"greeting": "Good morning", "handled": 1, "function": "greeter"});
    let response = host.function("greeter").invoke("hi").await;
    assert_eq!(response.json(), greeted);
    parked(&host, "greeter").await;
    let failed = called(&host, "/2023-03-30/functions/greeter", "fail").await;
    assert_eq!((failed.status, failed.header("x-fc-error-type")), (200, "UnhandledInvocationError"));
    let told = failed.json();
    assert_eq!((&told["errorMessage"], &told["errorType"]), (&json!("told to fail"), &json!("ValueError")));
    assert!(told["stackTrace"].to_string().contains("/code/index.py"), "{told}");
    // The handler's logger writes the request's identifier, and the host notes it.
    let request = response.header("dormouse-request-id").to_owned();
    let own: Vec<_> = lines(&host, "greeter").await.into_iter().filter(|line| line["request"] == *request).collect();
    let text = own[0]["text"].as_str().unwrap();
    assert!(text.contains(&format!("{request} [INFO] handling request 1")), "{text}");
    parked(&host, "greeter").await;
    let instances = host.get("/v1/functions/greeter/instances").await.json();
    let instance = instances["instances"][0]["id"].as_str().unwrap();
    host.post(&format!("/v1/instances/{instance}/stop")).await;
    eventually("pre_stop ran", async || {
        let lines = lines(&host, "greeter").await;
        let has = lines.iter().any(|line| line["text"].as_str().unwrap().contains("pre_stop after 2 requests"));
        has.then_some(()).ok_or_else(|| format!("{lines:?}"))
    })
    .await;
    let lines = lines(&host, "greeter").await;
    let has = |text: &str| lines.iter().any(|line| line["text"].as_str().unwrap().contains(text));
    assert!(has("initializer of greeter"));
    assert!(!has("pre_freeze"), "it is not configured");

    // Its HTTP trigger, by which the handler gets the event form of 3.0.
    let url = format!("{}/2023-03-30/proxy/greeter/tea?a=1", host.data);
    let answer = Reply::of(host.client.get(url).send().await.unwrap()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.json()["handled"], 1);
}

fn collector_url(collector: &TestServer) -> String {
    format!("http://{}", collector.address)
}

/// A file for one function of 2.0 with an HTTP trigger.
fn http_function(runtime: &str, more: &str) -> String {
    format!(
        "services:\n  web:\n    component: fc\n    props:\n      region: local\n      service: {{name: web}}\n      function:\n        \
         name: site\n        runtime: {runtime}\n        handler: index.handler\n        codeUri: ./code\n        memorySize: 256\n        \
         instanceConcurrency: 10\n      triggers:\n        - name: http\n          type: http\n          config: {{authType: anonymous, \
         methods: [GET, POST]}}\n{more}"
    )
}

/// Sends a request to the HTTP function.
async fn site(host: &TestHost, method: &str, path: &str, body: &'static str) -> Reply {
    let url = format!("{}/2016-08-15/proxy/web/site/{path}", host.data);
    let request = host.client.request(method.parse().unwrap(), url).header("x-mine", "1").body(body);
    Reply::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn an_http_function_in_python_is_a_wsgi_application_with_its_packages() {
    let (host, folder) = (TestHost::start().await, tempfile::tempdir().unwrap());
    let collector = TestServer::start("kept", Duration::ZERO).await;
    write(folder.path(), "s.yaml", &http_function("python3.9", ""));
    write(folder.path(), "code/requirements.txt", "flask==3.1.2\nrequests==2.32.5\npyyaml==6.0.3\n");
    write(folder.path(), "code/data/greeting.txt", "hello from a file");
    write(
        folder.path(),
        "code/index.py",
        r#"
import os, shutil, tempfile
import requests, yaml
from flask import Flask, request

app = Flask(__name__)

@app.route("/hello/<name>", methods=["GET", "POST"])
def hello(name):
    response = app.make_response(f"{name} {request.args.get('q')} {request.headers['x-mine']} {request.get_data(as_text=True)}")
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response, 201

@app.route("/file")
def file():
    with open(os.path.join(os.path.dirname(__file__), "data", "greeting.txt")) as greeting:
        text = greeting.read()
    path = os.path.join(tempfile.gettempdir(), "note.txt")
    with open(path, "w") as note:
        note.write(text.upper())
    os.makedirs("/tmp/a/b")
    shutil.rmtree("/tmp/a")
    walked = [name for _, _, names in os.walk("/tmp") for name in names]
    return yaml.dump({"text": open(path).read(), "files": sorted(os.listdir("data")), "walked": walked})

@app.route("/fetch")
def fetch():
    return requests.post(request.args["url"], json={"from": "python"}, timeout=5).text

def handler(environ, start_response):
    environ["fc.context"].logger.info("serving %s", environ["PATH_INFO"])
    return app(environ, start_response)
"#,
    );
    let said = deploy(&host, folder.path()).await;
    assert!(said.contains("`yaml` has machine code, which a component cannot run"), "{said}");
    let answer = site(&host, "POST", "hello/a%20b?q=1%202", "body").await;
    assert_eq!((answer.status, answer.text().as_str()), (201, "a b 1 2 1 body"));
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(cookies, ["a=1; Path=/", "b=2; Path=/"]);
    let file = site(&host, "GET", "file", "").await;
    assert_eq!(file.text(), "files:\n- greeting.txt\ntext: HELLO FROM A FILE\nwalked:\n- note.txt\n");
    let fetched = site(&host, "GET", &format!("fetch?url={}/collect", collector_url(&collector)), "").await;
    assert_eq!(fetched.status, 200, "{fetched:?}");
    assert!(collector.received().iter().any(|request| request.body.contains("\"from\": \"python\"")), "it was sent");
    assert_eq!(site(&host, "GET", "none", "").await.status, 404);
}

#[tokio::test]
async fn an_http_function_in_nodejs_takes_requests_and_responses_with_its_packages() {
    let (host, folder) = (TestHost::start().await, tempfile::tempdir().unwrap());
    let collector = TestServer::start("kept", Duration::ZERO).await;
    write(folder.path(), "s.yaml", &http_function("nodejs16", ""));
    write(folder.path(), "code/package.json", r#"{"dependencies": {"raw-body": "3.0.1", "uuid": "11.1.0"}}"#);
    write(folder.path(), "code/data/greeting.txt", "hello from a file");
    write(
        folder.path(),
        "code/index.js",
        r#"
const fs = require("fs"), path = require("path"), http = require("http"), { createHash } = require("node:crypto");
const getRawBody = require("raw-body"), { validate, v4 } = require("uuid");

exports.handler = (req, resp, context) => {
  console.log("serving", req.path);
  if (req.path === "/file") {
    fs.writeFileSync("/tmp/note.txt", fs.readFileSync(path.join(__dirname, "data/greeting.txt"), "utf8").toUpperCase());
    return resp.send(fs.readFileSync("/tmp/note.txt"));
  }
  if (req.path === "/fetch") {
    const sent = http.request(req.queries.url, { method: "POST", headers: { "x-from": "nodejs" } }, (answer) => {
      const chunks = [];
      answer.on("data", (chunk) => chunks.push(chunk));
      answer.on("end", () => resp.send(Buffer.concat(chunks)));
    });
    return sent.end("from nodejs");
  }
  if (req.path === "/throw") throw new TypeError("no page");
  getRawBody(req, (error, body) => {
    resp.setStatusCode(201);
    resp.setHeader("content-type", "text/plain");
    resp.setHeader("set-cookie", ["a=1", "b=2"]);
    const md5 = createHash("md5").update(body).digest("hex");
    resp.send(`${req.method} ${req.path} ${req.queries.q} ${req.headers["x-mine"]} ${body} ${md5} ${validate(v4())}`);
  });
};
"#,
    );
    deploy(&host, folder.path()).await;
    let answer = site(&host, "POST", "a%20b?q=1%202", "body").await;
    let text = "POST /a b 1 2 1 body 841a2d689ad86bd1611447453c22c6fc true";
    assert_eq!((answer.status, answer.text().as_str()), (201, text));
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!(site(&host, "GET", "file", "").await.text(), "HELLO FROM A FILE");
    let fetched = site(&host, "GET", &format!("fetch?url={}/collect", collector_url(&collector)), "").await;
    assert_eq!(fetched.status, 200, "{fetched:?}");
    assert!(
        collector.received().iter().any(|request| request.body == "from nodejs" && request.field("x-from") == "nodejs"),
        "it was sent"
    );
    let failed = site(&host, "GET", "throw", "").await;
    assert!(failed.status >= 500 && failed.text().contains("no page"), "{failed:?}");
}

#[tokio::test]
async fn functions_are_found_by_the_names_that_hooks_have_and_odd_ones_harm_nobody_else() {
    let (host, folder) = (TestHost::start().await, tempfile::tempdir().unwrap());
    write(
        folder.path(),
        "s.yaml",
        "resources:\n  one:\n    component: fc3\n    props:\n      functionName: one\n      runtime: nodejs20\n      handler: index.run\n      \
         code: ./code\n      timeout: 4\n      instanceConcurrency: 10\n      instanceLifecycleConfig:\n        initializer: {handler: \
         index.init}\n        preFreeze: {handler: index.preStop}\n",
    );
    write(folder.path(), "code/package.json", r#"{"type": "module"}"#);
    write(
        folder.path(),
        "code/index.js",
        r#"
const four = await Promise.resolve(4);
let frozen = 0;
export const init = async () => {};
export const preStop = async () => { frozen += 1; };
export const run = (event, context, callback) => {
  const text = event.toString();
  if (text === "never") return;
  if (text === "slow") return void setTimeout(() => callback(null, "slow"), 300);
  if (text === "circular") { const circle = {}; circle.circle = circle; return callback(null, circle); }
  if (text === "undefined") throw undefined;
  callback(null, { four, frozen });
};
"#,
    );
    deploy(&host, folder.path()).await;
    assert_eq!(reply(&host, "one", "").await, r#"{"four":4,"frozen":0}"#, "what is awaited at the top is there");
    parked(&host, "one").await;
    assert_eq!(reply(&host, "one", "").await, r#"{"four":4,"frozen":1}"#, "preFreeze calls the function that it names");
    // One that never answers runs into its timeout, and takes nobody with it.
    let one = host.function("one");
    let (never, slow) = tokio::join!(one.invoke("never"), reply(&host, "one", "slow"));
    never.problem(504, "function-timed-out");
    assert_eq!(slow, "slow");
    for (event, said) in [("circular", "circular reference"), ("undefined", "undefined")] {
        let told = called(&host, "/2023-03-30/functions/one", event).await;
        assert_eq!(told.header("x-fc-error-type"), "UnhandledInvocationError", "{told:?}");
        assert_eq!(told.json()["errorMessage"], said);
    }
}

#[tokio::test]
async fn packages_that_cannot_run_are_named_with_the_reason() {
    let (host, folder) = (TestHost::start().await, tempfile::tempdir().unwrap());
    write(folder.path(), "s.yaml", &http_function("python3.10", ""));
    write(folder.path(), "code/requirements.txt", "ujson==5.11.0\n");
    write(folder.path(), "code/index.py", "import ujson\n\ndef handler(event, context):\n    return ujson.dumps({})\n");
    let said = refused(&host, folder.path()).await;
    assert!(said.contains("`ujson`, which index.py imports, cannot run in a component: "), "{said}");
    assert!(said.contains("is machine code, which a component cannot run"), "{said}");
    assert!(!said.contains("wasm backtrace"), "{said}");
    fs::remove_file(folder.path().join("code/requirements.txt")).unwrap();
    let said = refused(&host, folder.path()).await;
    assert!(said.contains("`ujson`, which index.py imports, is not there"), "{said}");
    write(folder.path(), "code/index.py", "def handler(event, context)\n    return 1\n");
    let said = refused(&host, folder.path()).await;
    assert!(said.contains("index.py") && said.contains("SyntaxError"), "{said}");
    write(folder.path(), "code/index.py", "");
    fs::remove_file(folder.path().join("code/index.py")).unwrap();
    let said = refused(&host, folder.path()).await;
    assert!(said.contains("there is no index.py in ./code, which the handler `index.handler` names"), "{said}");

    // `node-gyp-build` finds machine code; `addon` has some.
    write(folder.path(), "s.yaml", &http_function("nodejs16", ""));
    write(folder.path(), "code/addon/index.js", "module.exports = require('./addon.node');\n");
    write(folder.path(), "code/addon/package.json", r#"{"name": "addon", "version": "1.0.0"}"#);
    write(folder.path(), "code/addon/addon.node", "machine code");
    write(folder.path(), "code/package.json", r#"{"dependencies": {"addon": "file:./addon"}}"#);
    write(
        folder.path(),
        "code/index.js",
        "exports.handler = (req, resp) => { try { require('addon') } catch (error) { resp.send(error.message) } };\n",
    );
    let said = deploy(&host, folder.path()).await;
    assert!(said.contains("cannot run: it has machine code, which a component cannot run"), "{said}");
    let answer = site(&host, "GET", "", "").await;
    assert!(answer.text().contains("cannot run: it has machine code"), "{answer:?}");
    write(folder.path(), "code/index.js", "exports.handler = (req, resp => {};\n");
    let said = refused(&host, folder.path()).await;
    assert!(said.contains("index.js:1: "), "{said}");
}

/// A file for functions that are components already.
fn of_components(folder: &Path) -> PathBuf {
    fs::write(folder.join("hello.wasm"), tests::component("example-hello")).unwrap();
    fs::write(folder.join("greeting.txt"), "from a file").unwrap();
    let text = r#"
edition: 3.0.0
name: shop
access: default
vars:
  size: 256
  prefix: shop
template:
  base: {region: local, runtime: custom.debian12, handler: index.handler, code: ./hello.wasm, timeout: 10}
resources:
  first:
    component: fc3
    extend: {name: base}
    props:
      functionName: ${vars.prefix}-first
      memorySize: ${vars.size}
      description: ${file('greeting.txt')}
      environmentVariables: {STAGE: "${env('SHOP_STAGE', 'test')}", TIMEOUT: "${this.props.timeout}"}
      vpcConfig: {vpcId: vpc-1}
      asyncInvokeConfig: {maxAsyncRetryAttempts: 1}
      triggers:
        - triggerName: nightly
          triggerType: timer
          triggerConfig: {cronExpression: "0 0 4 1 1 *", enable: true, payload: ""}
      customDomain:
        domainName: Shop.Example.com
        protocol: HTTP
        route: {path: /*, qualifier: prod}
      aliases:
        - aliasName: prod
  second:
    component: fc3
    actions:
      pre-deploy:
        - run: cp hello.wasm second.wasm
          path: .
    props:
      region: local
      functionName: ${first.props.functionName}-again
      runtime: custom
      handler: bootstrap
      code: {src: ./second.wasm}
"#;
    fs::write(folder.join("s.yaml"), text).unwrap();
    folder.join("s.yaml")
}

#[tokio::test]
async fn variables_triggers_aliases_and_domains_of_a_file_are_deployed() {
    let (host, folder) = (TestHost::start().await, tempfile::tempdir().unwrap());
    host.has_compiled("example-hello");
    of_components(folder.path());
    let said = deploy(&host, folder.path()).await;
    assert!(said.contains("`vpcConfig` is kept and has no effect"), "{said}");
    let first = host.get("/v1/functions/shop-first").await.json();
    assert_eq!((&first["memoryMb"], &first["timeoutMs"]), (&json!(256), &json!(10_000)));
    assert_eq!(first["description"], "from a file");
    assert_eq!((&first["environment"]["STAGE"], &first["environment"]["TIMEOUT"]), (&json!("test"), &json!("10")));
    assert_eq!(first["async"]["qualifiers"]["LATEST"]["maxAttempts"], 2);
    assert_eq!(first["triggers"]["nightly"]["timer"]["cron"], "0 0 4 1 1 *");
    assert_eq!(host.get("/v1/functions/shop-first/aliases").await.json()["aliases"][0]["version"], "1");
    assert_eq!(host.get("/v1/functions/shop-first-again").await.status, 200);

    // The domain leads to the alias.
    let asked = async |name: &str, path: &str| {
        let request = host.client.post(format!("{}{path}", host.data)).header("host", name).body("Ada");
        Reply::of(request.send().await.unwrap()).await
    };
    assert_eq!(asked("shop.example.com", "/any/page").await.status, 200);
    assert_eq!(asked("other.example.com", "/any/page").await.status, 404);
    // Nothing changes the second time, and no new version is published.
    deploy(&host, folder.path()).await;
    assert_eq!(host.get("/v1/functions/shop-first").await.json()["revision"], first["revision"]);
    assert_eq!(host.get("/v1/functions/shop-first/aliases").await.json()["aliases"][0]["version"], "1");
    // A domain that is taken away leads nowhere.
    let url = format!("{}/2023-03-30/custom-domains/shop.example.com", host.admin);
    let shown = Reply::of(host.client.get(&url).send().await.unwrap()).await.json();
    assert_eq!(shown["routeConfig"]["routes"][0]["functionName"], "shop-first");
    assert_eq!(Reply::of(host.client.delete(&url).send().await.unwrap()).await.status, 204);
    assert_eq!(asked("shop.example.com", "/any/page").await.status, 404);
    assert_eq!(Reply::of(host.client.get(&url).send().await.unwrap()).await.status, 404);
}

#[tokio::test]
async fn a_file_comes_up_and_becomes_a_manifest_that_does_the_same() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = of_components(folder.path());
    let up = Up::template(&file, state.path()).await;
    assert_eq!(up.functions.len(), 2);
    assert!(up.invoke("shop-first", "Ada").await.text().contains("Ada"));
    let settings = up.functions[0].clone();
    up.interrupt().await;

    let new = dormouse().args(["new", "--from"]).arg(&file).output().await.unwrap();
    let said = String::from_utf8_lossy(&new.stderr).into_owned();
    assert!(
        new.status.success() && said.contains("aliases are not carried over; set them with `dormouse alias set`"),
        "{said}"
    );
    let again = dormouse().args(["new", "--from"]).arg(&file).output().await.unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"), "{again:?}");
    let state = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), state.path(), &[]).await;
    let own = up.functions.iter().find(|function| function["name"] == "shop-first").unwrap();
    for name in ["memoryMb", "timeoutMs", "environment", "lifecycle", "httpEvent", "billingBasis", "async", "triggers"]
    {
        assert_eq!(own[name], settings[name], "{name}");
    }
    up.interrupt().await;
}

#[tokio::test]
async fn every_fault_of_a_file_is_named_before_anything_is_deployed() {
    let (host, folder) = (TestHost::start().await, tempfile::tempdir().unwrap());
    let file = of_components(folder.path());
    let text = fs::read_to_string(&file).unwrap();
    let said = async |from: &str, to: &str| {
        change(folder.path(), "s.yaml", from, to);
        let said = refused(&host, folder.path()).await;
        fs::write(&file, &text).unwrap();
        said
    };
    for (from, to, part) in [
        ("runtime: custom\n", "runtimes: custom\n", "unknown key `runtimes`"),
        ("component: fc3\n    actions", "component: fc4\n    actions", "component `fc4` is not known"),
        ("memorySize: ${vars.size}", "memorySize: ${vars.sizes}", "line 16: `${vars.sizes}`: is not there"),
        (
            "memorySize: ${vars.size}",
            "memorySize: large",
            "line 16: `memorySize` is the text \"large\"; it must be a number",
        ),
        ("${file('greeting.txt')}", "${file('none.txt')}", "none.txt"),
        ("src: ./second.wasm", "src: ./nowhere", "the runtime `custom` needs a component"),
        ("edition: 3.0.0", "edition: [", "line"),
        ("functionName: ${vars.prefix}-first", "functionName: no name", "resource `first`"),
    ] {
        let said = said(from, to).await;
        assert!(said.contains(part) && said.contains("s.yaml"), "{part}: {said}");
    }
    assert_eq!(host.get("/v1/functions").await.json()["functions"], json!([]));
    // What only the host knows is told as the host tells it.
    let told = said("timeout: 10", "timeout: 100000").await;
    assert!(
        told.contains("function `shop-first`: `timeout` is 100000; it must be a whole number, 1 to 86400"),
        "{told}"
    );
    // Whoever forgets `-t` is told of it.
    for (arguments, part) in
        [(&["deploy"][..], "`-t s.yaml` takes it"), (&["deploy", "s.yaml"], "`-t s.yaml` takes a file")]
    {
        let forgot = dormouse().args(arguments).current_dir(folder.path()).output().await.unwrap();
        assert!(String::from_utf8_lossy(&forgot.stderr).contains(part), "{forgot:?}");
    }
    let nowhere = dormouse().args(["deploy", "-t", "none.yaml"]).current_dir(folder.path()).output().await.unwrap();
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("none.yaml"), "{nowhere:?}");
}

#[tokio::test]
async fn custom_domains_are_checked_and_collide_with_no_other() {
    let host = TestHost::start().await;
    host.deploy("site", "example-hello", json!({})).await;
    host.deploy("other", "example-hello", json!({})).await;
    let send = async |method: &str, path: &str, body: Value| {
        let url = format!("{}/2023-03-30/custom-domains{path}", host.admin);
        let request = host.client.request(method.parse().unwrap(), url).body(body.to_string());
        Reply::of(request.send().await.unwrap()).await
    };
    let domain = |name: &str, function: &str, path: &str| {
        json!({"domainName": name, "protocol": "HTTP",
            "routeConfig": {"routes": [{"path": path, "functionName": function, "methods": ["GET", "POST"]}]}})
    };
    assert_eq!(send("POST", "", domain("a.example.com", "site", "/*")).await.status, 200);
    for (body, status, code) in [
        (domain("A.example.com", "site", "/*"), 409, "DomainNameAlreadyExists"),
        (domain("b.example.com", "none", "/*"), 404, "FunctionNotFound"),
        (domain("b.example.com", "site", "no-path"), 400, "InvalidArgument"),
        (domain("no name", "site", "/*"), 400, "InvalidArgument"),
        (json!({"routeConfig": {}}), 400, "InvalidArgument"),
        (json!({"domainName": "c.example.com"}), 400, "InvalidArgument"),
        (domain("c.example.com.", "site", "/*"), 400, "InvalidArgument"),
        (
            json!({"domainName": "c.example.com", "authConfig": 5,
            "routeConfig": {"routes": [{"path": "/*", "functionName": "site"}]}}),
            400,
            "InvalidArgument",
        ),
        (
            json!({"domainName": "c.example.com", "certConfig": {"certName": "c", "privateKey": "k"}}),
            400,
            "InvalidArgument",
        ),
        (
            json!({"domainName": "c.example.com", "authConfig": {"authType": "jwt"},
            "routeConfig": {"routes": [{"path": "/*", "functionName": "site"}]}}),
            400,
            "InvalidArgument",
        ),
    ] {
        let said = send("POST", "", body.clone()).await;
        assert_eq!((said.status, said.json()["ErrorCode"].as_str().unwrap()), (status, code), "{body}: {said:?}");
    }
    // A key for one function reaches no other, by no way.
    let made = json!({"functions": ["site"], "rights": ["manage"]}).to_string();
    let made = host.client.post(format!("{}/v1/keys", host.admin)).body(made).send().await.unwrap();
    let token = Reply::of(made).await.json()["token"].as_str().unwrap().to_owned();
    let by_key = async |method: &str, path: &str, body: Value| {
        let url = format!("{}/2023-03-30/custom-domains{path}", host.admin);
        let request = host.client.request(method.parse().unwrap(), url).bearer_auth(&token).body(body.to_string());
        Reply::of(request.send().await.unwrap()).await.status
    };
    assert_eq!(by_key("POST", "", domain("k.example.com", "other", "/*")).await, 403);
    assert_eq!(by_key("POST", "", domain("k.example.com", "missing", "/*")).await, 403);
    assert_eq!(by_key("POST", "", domain("k.example.com", "site", "/*")).await, 200);
    assert_eq!(by_key("PUT", "/k.example.com", domain("k.example.com", "other", "/*")).await, 403);
    assert_eq!(by_key("DELETE", "/k.example.com", json!({})).await, 204);
    // An update moves its routes; another domain gets what was freed, and not what is taken.
    let page = async |name: &str, path: &str| {
        let request = host.client.post(format!("{}{path}", host.data)).header("host", name).body("Ada");
        Reply::of(request.send().await.unwrap()).await.status
    };
    assert_eq!((page("a.example.com", "/x").await, page("b.example.com", "/x").await), (200, 404));
    let moved = domain("a.example.com", "other", "/only");
    assert_eq!(send("PUT", "/a.example.com", moved).await.status, 200);
    assert_eq!((page("a.example.com", "/x").await, page("a.example.com", "/only").await), (404, 200));
    let listed = send("GET", "", json!({})).await.json();
    assert_eq!(listed["customDomains"].as_array().unwrap().len(), 1);
    // Triggers of a domain are not the function's own in these APIs.
    let triggers = host.client.get(format!("{}/2023-03-30/functions/other/triggers", host.admin)).send().await.unwrap();
    assert_eq!(Reply::of(triggers).await.json()["triggers"], json!([]));
    // Routes may change places. What cannot be done in whole is not done at all.
    let two = |first: &str, second: &str| {
        json!({"domainName": "d.example.com", "routeConfig": {"routes": [
            {"path": "/x", "functionName": first}, {"path": "/y", "functionName": second}]}})
    };
    assert_eq!(send("POST", "", two("site", "other")).await.status, 200);
    assert_eq!(send("PUT", "/d.example.com", two("other", "site")).await.status, 200);
    let shown = host.get("/v1/functions/site").await.json();
    let routes: Vec<_> = shown["triggers"].as_object().unwrap().values().map(|one| &one["http"]["path"]).collect();
    assert_eq!(routes, ["/y"]);
    let taken = json!({"triggers": {"own": {"http": {"host": "d.example.com", "path": "/taken"}}}}).to_string();
    let own = host.client.patch(format!("{}/v1/functions/other", host.admin)).body(taken).send().await.unwrap();
    assert_eq!(own.status(), 200);
    let said = send("PUT", "/d.example.com", domain("d.example.com", "site", "/taken")).await;
    assert_eq!((said.status, said.json()["ErrorCode"].as_str().unwrap()), (409, "TriggerAlreadyExists"));
    assert_eq!((page("d.example.com", "/x").await, page("d.example.com", "/y").await), (200, 200));
    let host = host.kill_and_restart().await;
    let url = format!("{}/2023-03-30/custom-domains/a.example.com", host.admin);
    assert_eq!(Reply::of(host.client.get(url).send().await.unwrap()).await.status, 200);
}

#[tokio::test]
async fn a_handler_of_events_gets_a_request_whole_if_it_is_set_so() {
    let host = TestHost::start().await;
    host.deploy("hello", "example-hello", json!({"httpEvent": "request"})).await;
    let url = format!("{}/fn/hello/a/b?x=1", host.data);
    let answer = Reply::of(host.client.put(&url).header("x-mine", "1").body("Ada").send().await.unwrap()).await;
    let text = answer.text();
    for part in [r#""rawPath":"/a/b""#, r#""method":"PUT""#, r#""x-mine":"1""#, r#""body":"Ada""#, r#""x":"1""#] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(answer.header("content-type"), "application/json");
    // Events stay what they are.
    assert_eq!(host.function("hello").invoke("Ada").await.text(), "Hello, Ada!\n");
    // Later, it is the same.
    let sent = host.client.post(&url).header("dormouse-invocation-type", "async").body("Ada").send().await.unwrap();
    let id = Reply::of(sent).await.json()["invocationId"].as_str().unwrap().to_owned();
    eventually("it has run", async || {
        let shown = host.get(&format!("/v1/functions/hello/invocations/{id}")).await.json();
        (shown["state"] == "succeeded").then_some(()).ok_or_else(|| shown.to_string())
    })
    .await;
    let wrong = host.client.patch(format!("{}/v1/functions/hello", host.admin)).body(r#"{"httpEvent": "all"}"#);
    let said = Reply::of(wrong.send().await.unwrap()).await;
    assert!(said.status == 422 && said.text().contains("`body` or `request`"), "{said:?}");
}

/// The component `fc3` comes from a store of its own and not from npm, so no test can run it. These are the requests that it
/// sends to deploy, to deploy again, to invoke and to remove, in its order and with its fields.
#[tokio::test]
async fn the_requests_of_the_component_fc3_are_answered_in_its_order() {
    let host = TestHost::start().await;
    host.has_compiled("example-hello");
    let ask = async |method: &str, path: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = host.client.request(method.parse().unwrap(), format!("{}{path}", host.admin)).body(body);
        // It streams JSON as if it were anything.
        Reply::of(request.header("content-type", "application/octet-stream").send().await.unwrap()).await
    };
    let demo = "/2023-03-30/functions/demo";
    assert_eq!(ask("GET", demo, Value::Null).await.json()["Code"], "FunctionNotFound");
    for setting in
        ["async-invoke-config?qualifier=LATEST", "vpc-bindings", "scaling-config?qualifier=LATEST", "concurrency"]
    {
        assert_eq!(ask("GET", &format!("{demo}/{setting}"), Value::Null).await.status, 404, "{setting}");
    }
    let token = ask("GET", "/2016-08-15/tempBucketToken", Value::Null).await.json();
    let object = format!("0/{}", token["objectName"].as_str().unwrap());
    let put = host.client.put(format!("{}/{object}", host.admin)).header("host", "code.oss-local.example.com");
    let put = put.header("authorization", "OSS id:signature").body(tests::component("example-hello"));
    let put = Reply::of(put.send().await.unwrap()).await;
    assert!(put.status == 200 && !put.header("etag").is_empty(), "{put:?}");
    let fields = json!({"functionName": "demo", "runtime": "custom.debian10", "handler": "index.handler", "memorySize": 512, "cpu": 0.35,
        "diskSize": 512, "timeout": 10, "instanceConcurrency": 5, "vpcConfig": {}, "nasConfig": {}, "ossMountConfig": {}, "logConfig": {},
        "tracingConfig": {}, "layers": [], "instanceIsolationMode": "SHARE", "sessionAffinity": "NONE", "internetAccess": true,
        "instanceLifecycleConfig": {"preStop": {"handler": "index.preStop", "timeout": 40}},
        "code": {"ossBucketName": token["ossBucket"], "ossObjectName": object}});
    let made = ask("POST", "/2023-03-30/functions", fields.clone()).await;
    assert_eq!(made.status, 200, "{made:?}");
    // The same checksum: it sends no code the second time.
    let shown = ask("GET", demo, Value::Null).await.json();
    assert_eq!(shown["codeChecksum"], made.json()["codeChecksum"]);
    let mut fields = fields;
    fields.as_object_mut().unwrap().remove("code");
    assert_eq!(ask("PUT", demo, fields).await.status, 200);
    let trigger = json!({"triggerName": "web", "triggerType": "http", "triggerConfig":
        json!({"authType": "anonymous", "methods": ["GET", "POST"], "disableURLInternet": false}).to_string()});
    assert_eq!(ask("GET", &format!("{demo}/triggers/web"), Value::Null).await.json()["Code"], "TriggerNotFound");
    assert_eq!(ask("POST", &format!("{demo}/triggers"), trigger.clone()).await.status, 200);
    assert_eq!(ask("PUT", &format!("{demo}/triggers/web"), trigger).await.status, 200);

    let invoked = host.client.post(format!("{}{demo}/invocations?qualifier=LATEST", host.admin)).body("Ada");
    let invoked = invoked.header("x-fc-invocation-type", "Sync").header("x-fc-log-type", "Tail");
    let invoked = Reply::of(invoked.send().await.unwrap()).await;
    assert_eq!((invoked.status, invoked.text().as_str()), (200, "Hello, Ada!\n"));
    assert!(!invoked.header("x-fc-log-result").is_empty());

    let none = ask("GET", &format!("{demo}/vpc-bindings"), Value::Null).await.json();
    assert_eq!(none["vpcIds"], json!([]));
    for list in [
        "provision-config?qualifier=LATEST",
        "scaling-config?qualifier=LATEST",
        "concurrency",
        "aliases",
        "versions",
        "triggers",
    ] {
        assert_eq!(ask("GET", &format!("{demo}/{list}"), Value::Null).await.status, 200, "{list}");
    }
    let configs = ask("GET", "/2023-03-30/async-invoke-configs?functionName=demo", Value::Null).await;
    assert_eq!(configs.json()["configs"], json!([]), "{configs:?}");
    assert_eq!(ask("DELETE", &format!("{demo}/triggers/web"), Value::Null).await.status, 204);
    assert_eq!(ask("DELETE", demo, Value::Null).await.status, 204);
    assert_eq!(ask("GET", demo, Value::Null).await.status, 404);
}
