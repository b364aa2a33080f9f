//! What watches a server from outside: probes, the dashboard for Grafana, and the alerts for Prometheus, against metrics of a running server.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::agent::Agent;
use crate::auth::guarded;
use crate::place::{CALLEE, CALLER, Place, SERVER, wait_for};
use crate::process;
use crate::redis::Redis;
use crate::server::{Conf, Server, binary};

const DASHBOARD: &str = include_str!("../../conf/grafana/strowger.json");
const RULES: &str = include_str!("../../conf/prometheus/strowger.rules.yml");

const PATIENCE: Duration = Duration::from_secs(30);

/// A metric that every scrape has, by Prometheus's own hand.
const OF_PROMETHEUS: &str = "up";

fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("the endpoint");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a body");
    let status = head.split(' ').nth(1).expect("a status");
    (status.to_owned(), body.to_owned())
}

fn with_metrics(place: &Place, conf: Conf) -> (Conf, SocketAddr) {
    let address = place.at_port(SERVER, 9090);
    (conf.set("metrics", "address", &format!("\"{address}\"")), address)
}

// ---- probes --------------------------------------------------------------------------------------------------------------

fn expect_probes(server: &Server, place: &Place, address: SocketAddr, ready: bool, why: &str) {
    let (status, said) = get(address, "/health");
    assert_eq!(status, "200", "{said}");
    let (status, said) = get(address, "/ready");
    assert_eq!(status, if ready { "200" } else { "503" }, "{said}");
    assert!(said.contains(why), "{said}");
    for (command, good) in [(&["health"][..], true), (&["health", "--ready"], ready)] {
        let outcome = server.command(place, command);
        assert_eq!((outcome.code, outcome.stdout), (Some(i32::from(!good)), said.clone()), "{command:?}");
    }
}

#[test]
fn a_server_that_drains_is_alive_and_not_ready() {
    let place = Place::new("probes-drain");
    let (conf, address) = with_metrics(&place, Conf::new(&place));
    let server = conf.start(&place);
    expect_probes(&server, &place, address, true, "alive and ready\n");

    // A call that rings keeps the server from its end.
    let (caller, callee) = (Agent::new(place.at(CALLER), server.address), Agent::new(place.at(CALLEE), server.address));
    server.bind(&place, "bob", callee.address);
    let invite = caller.request("INVITE", &server.uri("bob"));
    caller.send(&invite);
    let rings = callee.expect("INVITE", |message| message.is("INVITE"));
    callee.respond(&rings, 180, &[]);
    let drained = server.command(&place, &["drain", "--deadline", "60"]);
    assert_eq!(drained.code, Some(0), "{drained:?}");
    expect_probes(&server, &place, address, false, "alive, not ready\ndraining\n");
    callee.respond(&rings, 486, &[]);
    assert_eq!(caller.final_for(&invite).status(), Some(486));
    let end = server.finish(PATIENCE);
    assert_eq!(end.code, Some(0), "{end:?}");
    let control = place.path("control.sock").display().to_string();
    let gone = process::run(&place, "health", binary(), &["--control", &control, "health"], PATIENCE);
    assert!(gone.code == Some(1) && gone.stderr.contains("control.sock"), "{gone:?}");
}

/// Redis is away: no fault where the table has been read once, unless registrations are promised to be stored there.
#[test]
fn readiness_is_what_the_conf_promises() {
    for (durability, ready_without) in [("batched", true), ("acknowledged", false)] {
        let (place, at_redis) = (Place::new("probes"), Place::new("probes-redis"));
        let at = at_redis.at_port(SERVER, 6379);
        let redis = Redis::start(&at_redis, at);
        let conf = Conf::new(&place).set("location", "shared", &redis.url()).set("registrar", "database", "\"\"").set(
            "registrar",
            "durability",
            &format!("{durability:?}"),
        );
        let (conf, address) = with_metrics(&place, conf);
        let server = conf.start(&place);
        let becomes = |ready: &str, why: &str| {
            let there = wait_for(PATIENCE, || {
                let (status, said) = get(address, "/ready");
                (status == ready && said.contains(why)).then_some(())
            });
            assert!(there.is_some(), "{durability}: not {ready}, {why}: {:?}\n{}", get(address, "/ready"), server.log());
        };
        becomes("200", "alive and ready\n");
        drop(redis);
        match ready_without {
            true => becomes("200", "note: the shared location table is away\n"),
            false => {
                // It is noticed at the latest when a phone registers.
                let phone = Agent::new(place.at(CALLEE), server.address);
                phone.send(&phone.register("example.test", "bob", &format!("<{}>", phone.uri()), 600));
                becomes("503", "registrations are refused");
            }
        }
        assert_eq!(get(address, "/health").0, "200");
        // Who starts now knows no phone of the others.
        server.signal("TERM");
        server.finish(PATIENCE);
        let server = conf.start(&place);
        expect_probes(&server, &place, address, false, "has not been read since the start\n");
        let redis = Redis::start(&at_redis, at);
        let back = wait_for(PATIENCE, || (get(address, "/ready").0 == "200").then_some(()));
        assert!(back.is_some(), "{:?}", get(address, "/ready"));
        drop(redis);
    }
}

// ---- the dashboard and the alerts ----------------------------------------------------------------------------------------

/// The names of all metrics in expressions: words before a brace, a bracket or an operator that look like one of ours.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("strowger_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// Selectors with one exact value: metric, label, value.
fn exact_values(expression: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for piece in expression.split('}') {
        let Some((before, labels)) = piece.rsplit_once('{') else {
            continue;
        };
        let metric = before.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default();
        for label in labels.split(',') {
            if let Some((name, value)) = label.split_once('=')
                && !value.starts_with('~')
                && !name.ends_with('!')
            {
                found.push((metric.to_owned(), name.to_owned(), value.trim_matches('"').to_owned()));
            }
        }
    }
    found
}

/// A server that has all there is to count.
fn everything(place: &Place, redis: &Redis) -> Conf {
    let password = place.write("carrier.password", "sesame\n");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).expect("the password's file");
    let trunk = format!(
        "name = \"carrier\"\nregistrar = \"sip:{}\"\nuser = \"4930\"\npassword_file = {:?}",
        place.at(CALLEE),
        password.display().to_string()
    );
    let route = format!("to_user_prefix = \"0\"\naction = \"relay\"\ntrunk = \"carrier\"\ntarget = [\"sip:{}\"]", place.at(CALLEE));
    guarded(place, &["alice"])
        .set("location", "shared", &redis.url())
        .set("records", "file", "\"calls.jsonl\"")
        .section("[[trunk]]", &trunk)
        .route(&route)
}

fn queries_of(dashboard: &serde_json::Value) -> Vec<&str> {
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let queries = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    queries.map(|query| query["expr"].as_str().expect("a query")).collect()
}

#[test]
fn what_dashboard_and_alerts_name_is_there() {
    let (place, at_redis) = (Place::new("observing"), Place::new("observing-redis"));
    let redis = Redis::start(&at_redis, at_redis.at_port(SERVER, 6379));
    let (conf, address) = with_metrics(&place, everything(&place, &redis));
    let _server = conf.start(&place);
    let (_, scrape) = get(address, "/metrics");
    let samples: Vec<&str> = scrape.lines().filter(|line| !line.starts_with('#')).collect();
    let names: BTreeSet<&str> = samples.iter().filter_map(|line| line.split(['{', ' ']).next()).collect();
    assert!(names.len() > 80, "{names:?}");

    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let numbers: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("a number")).collect();
    assert_eq!(numbers.len(), panels.len(), "panels of one number");
    let queries = queries_of(&dashboard);
    assert!(queries.len() > 25, "{queries:?}");
    let variables = dashboard["templating"]["list"].as_array().expect("variables").iter();
    let variables: Vec<&str> = variables.filter_map(|variable| variable["definition"].as_str()).collect();
    let is_for_people = |line: &str| ["#", "summary:", "description:"].iter().any(|begin| line.trim_start().starts_with(begin));
    let alerts: Vec<&str> = RULES.lines().filter(|line| !is_for_people(line)).collect();

    let mut missing = BTreeSet::new();
    let mut seen = 0;
    for expression in queries.iter().chain(&variables).chain(&alerts) {
        for name in metrics_in(expression) {
            seen += 1;
            if !names.contains(name.as_str()) {
                missing.insert(name);
            }
        }
        for (metric, label, value) in exact_values(expression) {
            // "job" is Prometheus's, and so is "up".
            if metric.is_empty() || metric == OF_PROMETHEUS || label == "job" {
                continue;
            }
            let pair = format!("{label}=\"{value}\"");
            if label != "target" && !samples.iter().any(|line| line.starts_with(&format!("{metric}{{")) && line.contains(&pair)) {
                missing.insert(format!("{metric}{{{pair}}}"));
            }
        }
    }
    assert!(seen > 60, "{seen}");
    assert!(missing.is_empty(), "not in the metrics of a server: {missing:?}");
    // The alternatives of a pattern are words that the server has.
    for name in RULES.split("limit=~\"").nth(1).and_then(|rest| rest.split('"').next()).expect("limits").split('|') {
        assert!(scrape.contains(&format!("strowger_limit_hits_total{{limit=\"{name}\"}}")), "{name}");
    }
}

#[test]
fn promtool_finds_the_alerts_right_and_they_fire_when_they_should() {
    let root = env!("CARGO_MANIFEST_DIR");
    let place = Place::new("promtool");
    // The dashboard's queries too, as rules that record them; JSON is YAML.
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let plain = |query: &str| query.replace("$__rate_interval", "5m").replace("$instance", ".*");
    let record = |(number, query): (usize, &&str)| serde_json::json!({"record": format!("query:{number}"), "expr": plain(query)});
    let rules: Vec<serde_json::Value> = queries_of(&dashboard).iter().enumerate().map(record).collect();
    let rules = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let queries = place.write("queries.yml", &rules.to_string()).display().to_string();
    for (command, file) in [
        ("check", queries),
        ("check", format!("{root}/conf/prometheus/strowger.rules.yml")),
        ("test", format!("{root}/tests/data/prometheus/strowger.test.yml")),
    ] {
        let outcome = process::run(&place, "promtool", Path::new("promtool"), &[command, "rules", &file], PATIENCE);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }
}
