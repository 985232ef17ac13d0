//! The page at `/` in a real browser, with alerts that hostile clients cause.

#![allow(clippy::unwrap_used)]

mod browser;
mod common;
mod daemon;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;

use browser::Browser;
use daemon::{Daemon, TOKEN};
use pullwatch::internals::daemon::store;
use pullwatch::internals::detection::alert::{NewAlert, Priority};
use serde_json::{Value, json};

/// What clients may send as user, user agent, namespace and name.
const HOSTILE: [&str; 8] = [
    "<img src=x onerror=window.pwned=1>",
    "</script><script>window.pwned=1</script>",
    "\"><svg onload=window.pwned=1>",
    "javascript:window.pwned=1//",
    "${jndi:ldap://evil.example/a}{{constructor.constructor('window.pwned=1')()}}",
    "right\u{202e}to\u{2066}left\u{200b}",
    "line\r\nbreak\u{0}nul\u{1b}[31mred",
    "<style>*{display:none}</style><iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
];

/// An event in which each text is hostile.
fn event(number: usize, text: &str) -> String {
    let mut event: Value =
        serde_json::from_str(&common::event(&format!("id-{number}"), "get", "regcred")).unwrap();
    event["user"]["username"] = format!("user {text}").into();
    event["user"]["groups"] = json!([text]);
    event["userAgent"] = format!("agent {text}").into();
    event["sourceIPs"] = json!([text]);
    event["objectRef"]["namespace"] = format!("ns-{text}").into();
    event["requestURI"] = format!("/api/v1/namespaces/{text}/secrets/regcred").into();
    event.to_string() + "\n"
}

fn log() -> Vec<u8> {
    HOSTILE.iter().enumerate().map(|(number, text)| event(number, text)).collect::<String>().into_bytes()
}

/// Asserts that the page shows nothing but text, and that no script ran.
fn assert_harmless(browser: &mut Browser, view: &str) {
    assert_eq!(browser.evaluate("typeof window.pwned").unwrap(), "undefined", "{view}");
    let foreign = "document.querySelectorAll('main :is(img, script, svg, iframe, style, object, embed, base, meta)').length";
    assert_eq!(browser.evaluate(foreign).unwrap(), 0, "{view}");
    let links = "[...document.querySelectorAll('main a')].map((a) => a.getAttribute('href')).filter((href) => !/^(#\\/|https:\\/\\/)/.test(href)).join()";
    assert_eq!(browser.evaluate(links).unwrap(), "", "{view}");
    let text = browser.text();
    let is_disruptive = |letter: char| {
        (letter.is_control() && !matches!(letter, '\n' | '\t'))
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(is_disruptive), "{view}: {text:?}");
    let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.evaluate(overflow).unwrap(), 0, "{view} is wider than the window");
}

/// Replaces every text of an alert's JSON but its time and priority.
fn poison(value: &mut Value, name: &str, text: &str) {
    match value {
        Value::String(old) if !["time", "priority", "id", "exposure", "scope"].contains(&name) => {
            *old = format!("{name}/{text}");
        }
        Value::Array(items) => items.iter_mut().for_each(|item| poison(item, name, text)),
        Value::Object(members) => {
            members.iter_mut().for_each(|(name, member)| poison(member, name, text));
            members.insert(text.to_owned(), text.into());
        }
        _ => {}
    }
}

/// Stores alerts that no redaction went over: as if the file were an attacker's.
fn store_hostile_alerts(dir: &Path) {
    let output = common::scan(&[common::project("samples/audit/request-response.log.gz").to_str().unwrap()]);
    let alerts = common::alerts(&output);
    let sample = [
        alerts.iter().find(|alert| alert["rule"] == "Registry Credential Read").unwrap(),
        alerts.iter().find(|alert| alert["correlation"].is_object()).unwrap(),
    ];
    let mut store = store::Store::open(dir, &store::Options::default()).unwrap().store;
    let alerts: Vec<NewAlert> = HOSTILE
        .iter()
        .enumerate()
        .map(|(number, text)| {
            let mut alert = sample[number % 2].clone();
            poison(&mut alert, "", text);
            let id = [u8::try_from(number + 1).unwrap(); 16];
            alert["id"] = format!("{:02x}", number + 1).repeat(16).into();
            NewAlert {
                id,
                time: 1_795_405_548_000_000_000,
                rule: (*text).to_owned(),
                priority: Priority::Critical,
                actor: format!("user {text}"),
                target: (*text).to_owned(),
                json: alert.to_string().into_bytes(),
                message: (*text).to_owned(),
            }
        })
        .collect();
    store
        .commit(&store::Batch { alerts: &alerts, now: 1_795_405_548_000_000_000, ..store::Batch::default() })
        .unwrap();
}

#[test]
fn hostile_values_are_shown_as_text() {
    let Some(mut browser) = Browser::start() else { return };
    let daemon = Daemon::prepared(&log(), &[], store_hostile_alerts);
    common::wait_for("all alerts", || daemon.wait_for_alerts() >= 2 * HOSTILE.len());
    let total = daemon.wait_for_alerts();
    let url = format!("http://{}/", daemon.address);
    let page = daemon.get("/api/v1/alerts?limit=1000").1;
    for width in [390, 1600] {
        browser.set_width(width);
        browser.open(&url);
        browser.wait(&format!("document.querySelectorAll('.rows > li').length === {total}"));
        assert_harmless(&mut browser, "alerts");
        let text = browser.text();
        for shown in [
            "<img src=x onerror=",
            "</script><script>",
            "${jndi:ldap://",
            "\\u{202e}",
            "\\u{d}\\u{a}break\\u{0}",
        ] {
            assert!(text.contains(shown), "{shown} is not shown: {text}");
        }
        browser.open(&format!("{url}#/exposures"));
        browser.wait("document.querySelector('details') !== null");
        browser
            .evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            .unwrap();
        assert_harmless(&mut browser, "exposures");
        assert!(browser.text().contains("<img src=x onerror="), "{}", browser.text());
        for alert in page["alerts"].as_array().unwrap() {
            browser.open(&format!("{url}#/alerts/{}", alert["id"].as_str().unwrap()));
            browser.wait("document.querySelector('main pre[aria-label=Event]') !== null");
            assert_harmless(&mut browser, &format!("alert {} at {width}", alert["id"]));
        }
        browser.open(&format!("{url}#/status"));
        browser.wait("document.querySelectorAll('main details').length > 10");
        assert_harmless(&mut browser, "status");
        // Fragments are the address of a view, and nothing else.
        browser.open(&format!("{url}#/alerts/%3Cimg%20src=x%20onerror=window.pwned=1%3E"));
        browser.wait("document.querySelector('h1') !== null");
        assert_harmless(&mut browser, "unknown view");
    }
    // The policy was not asked for anything.
    assert!(browser.messages.is_empty(), "{:#?}", browser.messages);
}

/// Texts whose contrast with their background is below 4.5 to 1 (WCAG 2.2, success criterion 1.4.3), each with the ratio.
const LOW_CONTRAST: &str = r"(() => {
    const rgb = (color) => color.match(/[\d.]+/g).map(Number);
    const luminance = ([red, green, blue]) => {
        const [r, g, b] = [red, green, blue].map((part) => {
            const share = part / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const background = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = rgb(getComputedStyle(at).backgroundColor);
            if (color.length === 3 || color[3] === 1) return color;
        }
        return [255, 255, 255];
    };
    const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    return [...document.querySelectorAll('body *')]
        .filter((element) => hasText(element) && element.checkVisibility() && element.id !== 'live')
        .map((element) => {
            const [one, other] = [rgb(getComputedStyle(element).color), background(element)].map(luminance);
            const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
            return [element, ratio];
        })
        .filter(([, ratio]) => ratio < 4.5)
        .map(([element, ratio]) => `${element.tagName}.${element.className} ${element.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`)
        .join('\n');
})()";

#[test]
fn is_readable_at_every_width_in_both_color_schemes() {
    let Some(mut browser) = Browser::start() else { return };
    let daemon = Daemon::on_log(&log(), &[]);
    common::wait_for("all alerts", || daemon.wait_for_alerts() >= HOSTILE.len());
    let id = daemon.get("/api/v1/alerts?limit=1").1["alerts"][0]["id"].as_str().unwrap().to_owned();
    let mut backgrounds = std::collections::BTreeSet::new();
    for scheme in ["light", "dark"] {
        browser.set_scheme(scheme);
        for width in [390, 820, 1600] {
            browser.set_width(width);
            for (view, shown) in [
                ("", "document.querySelectorAll('.rows > li').length > 5"),
                ("#/exposures", "document.querySelector('details') !== null"),
                (&*format!("#/alerts/{id}"), "document.querySelector('main pre[aria-label=Event]') !== null"),
                ("#/status", "document.querySelectorAll('main details').length > 10"),
            ] {
                browser.open(&format!("http://{}/{view}", daemon.address));
                browser.wait(shown);
                let place = format!("{view} at {width} in {scheme}");
                assert_harmless(&mut browser, &place);
                assert_eq!(browser.evaluate(LOW_CONTRAST).unwrap(), "", "{place}");
                // What a screen reader goes by.
                let landmarks = "document.querySelectorAll('body > header, header nav[aria-label], main, [role=status][aria-live], main h1').length";
                assert!(browser.evaluate(landmarks).unwrap().as_u64() >= Some(4), "{place}");
            }
        }
        let background = browser.evaluate("getComputedStyle(document.body).backgroundColor").unwrap();
        backgrounds.insert(background.to_string());
    }
    assert_eq!(backgrounds.len(), 2, "{backgrounds:?}");
    // The check finds a text in the color of the page.
    browser
        .evaluate(
            "document.querySelector('main h1').style.color = getComputedStyle(document.body).backgroundColor",
        )
        .unwrap();
    assert!(browser.evaluate(LOW_CONTRAST).unwrap().as_str().unwrap().starts_with("H1"));
}

/// Alerts in the store before the page is opened.
const STORED: usize = 10_000;

fn store_many_alerts(dir: &Path) {
    let mut store = store::Store::open(dir, &store::Options::default()).unwrap().store;
    let time = 1_795_405_548_000_000_000;
    for batch in 0..STORED / 1_000 {
        let alerts: Vec<NewAlert> = (0..1_000)
            .map(|at| {
                let number = batch * 1_000 + at;
                let json = json!({
                    "hostname": "h", "output": format!("read {number}"), "priority": "Warning", "rule": "Stored", "source": "k8s_audit",
                    "time": "2026-11-23T04:00:00Z", "output_fields": {}, "actor": format!("user {number}"),
                });
                let mut id = [7; 16];
                id[..8].copy_from_slice(&number.to_be_bytes());
                NewAlert {
                    id,
                    time,
                    rule: "Stored".to_owned(),
                    priority: Priority::Warning,
                    actor: format!("user {number}"),
                    target: "secret".to_owned(),
                    json: json.to_string().into_bytes(),
                    message: format!("read {number}"),
                }
            })
            .collect();
        store.commit(&store::Batch { alerts: &alerts, now: time, ..store::Batch::default() }).unwrap();
    }
}

#[test]
fn stays_responsive_with_many_alerts_while_more_arrive() {
    let Some(mut browser) = Browser::start() else { return };
    let daemon = Daemon::prepared(event(0, "first").as_bytes(), &[], store_many_alerts);
    browser.open(&format!("http://{}/", daemon.address));
    browser.wait("document.querySelectorAll('.rows > li').length > 40");
    browser.wait("[...document.querySelectorAll('.pill')].some((one) => one.textContent === 'live')");
    browser
        .evaluate(
            "window.drawn = 0; window.longest = 0; new PerformanceObserver((list) => { for (const one of list.getEntries()) window.longest = Math.max(window.longest, one.duration); }).observe({ entryTypes: ['longtask'] }); (function draw() { window.drawn += 1; requestAnimationFrame(draw); })()",
        )
        .unwrap();
    // 100 alerts a second.
    let mut drawn = 0;
    for second in 0..5 {
        let events: String =
            (0..100).map(|at| event(1 + second * 100 + at, &format!("{second}-{at}-"))).collect();
        daemon.append(events.as_bytes());
        std::thread::sleep(std::time::Duration::from_secs(1));
        // The page answers, and draws all the time.
        browser.wait(&format!("window.drawn > {drawn}"));
        drawn = browser.evaluate("window.drawn").unwrap().as_u64().unwrap();
    }
    browser.wait("document.querySelector('.rows > li .actor').innerText.includes('user 4-99-')");
    assert!(
        browser.evaluate("document.querySelectorAll('.rows > li').length").unwrap().as_u64() <= Some(400)
    );
    // Of the stored and of the new ones.
    for (actor, first) in [("user 9876", "user 9876"), ("2-50-", "user 2-50-")] {
        browser
            .evaluate(&format!(
                "(() => {{ const input = document.querySelector('input[name=actor]'); input.value = '{actor}'; input.dispatchEvent(new Event('input')); }})()"
            ))
            .unwrap();
        browser.wait(&format!(
            "document.querySelectorAll('.rows > li').length > 0 && [...document.querySelectorAll('.rows > li .actor')].every((one) => one.innerText.includes('{first}'))"
        ));
    }
    println!("longest task: {} ms, {drawn} frames", browser.evaluate("Math.round(window.longest)").unwrap());
}

#[test]
fn the_policy_stops_what_gets_through() {
    let Some(mut browser) = Browser::start() else { return };
    let daemon = Daemon::on_log(&log(), &[]);
    browser.open(&format!("http://{}/", daemon.address));
    browser.wait("document.querySelector('h1') !== null");
    // Markup from text is refused, wherever it came from.
    assert!(browser.evaluate("document.querySelector('main').innerHTML = '<b>x</b>'").is_err());
    assert!(
        browser.evaluate("document.querySelector('h1').insertAdjacentHTML('afterend', '<b>x</b>')").is_err()
    );
    // So are scripts and addresses of others.
    browser
        .evaluate(
            "(() => { const s = document.createElement('script'); try { s.textContent = 'window.pwned=1'; document.body.append(s); } catch {} })()",
        )
        .unwrap();
    assert_eq!(browser.evaluate("typeof window.pwned").unwrap(), "undefined");
    let foreign = "fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')";
    assert_eq!(browser.evaluate(foreign).unwrap(), "refused");
    assert!(!browser.messages.is_empty());
}

#[test]
fn new_alerts_appear_and_filters_apply_to_them() {
    let Some(mut browser) = Browser::start() else { return };
    let daemon = Daemon::on_log(event(0, "first").as_bytes(), &[]);
    daemon.wait_for_alerts();
    browser.open(&format!("http://{}/", daemon.address));
    browser.wait("document.querySelector('.pill.good')?.textContent === 'live' || [...document.querySelectorAll('.pill')].some((one) => one.textContent === 'live')");
    daemon.append(event(1, "second").as_bytes());
    browser.wait("document.querySelector('.rows > li .actor').innerText.includes('user second')");
    browser.wait("document.getElementById('live').textContent.includes('new alert')");
    // A filter selects stored alerts by the server, and new ones in the page.
    browser
        .evaluate(
            "(() => { const input = document.querySelector('input[name=actor]'); input.value = 'third'; input.dispatchEvent(new Event('input')); })()",
        )
        .unwrap();
    browser.wait("document.querySelectorAll('.rows > li').length === 0");
    browser.wait("[...document.querySelectorAll('.pill')].some((one) => one.textContent === 'live')");
    daemon.append((event(2, "fourth") + &event(3, "third")).as_bytes());
    browser.wait("document.querySelectorAll('.rows > li').length > 0");
    let actors =
        "[...document.querySelectorAll('.rows > li .actor')].every((one) => one.innerText.includes('third'))";
    assert_eq!(browser.evaluate(actors).unwrap(), true);
}

#[test]
fn a_token_is_asked_for_and_lets_acknowledge() {
    let Some(mut browser) = Browser::start() else { return };
    let daemon = Daemon::on_log(event(0, "first").as_bytes(), &["token"]);
    daemon.wait_for_alerts();
    let id = daemon.get("/api/v1/alerts").1["alerts"][0]["id"].as_str().unwrap().to_owned();
    browser.open(&format!("http://{}/#/alerts/{id}", daemon.address));
    browser.wait("!document.getElementById('token-form').hidden");
    assert!(!browser.text().contains("user first"));
    let enter = |token: &str| {
        format!(
            "document.getElementById('token').value = '{token}'; document.getElementById('token-form').requestSubmit()"
        )
    };
    browser.evaluate(&enter("wrong-token-wrong-token")).unwrap();
    browser.wait("document.querySelector('main').innerText.includes('invalid bearer token')");
    browser.evaluate(&enter(TOKEN)).unwrap();
    browser.wait("document.querySelector('form.ack') !== null");
    browser
        .evaluate(
            "document.querySelector('form.ack input[name=by]').value = '<b>ada</b>'; document.querySelector('form.ack').requestSubmit()",
        )
        .unwrap();
    browser.wait("document.querySelector('main').innerText.includes('Acknowledged by <b>ada</b>')");
    assert_eq!(daemon.get(&format!("/api/v1/alerts/{id}")).1["acknowledged"]["by"], "<b>ada</b>");
}

/// A proxy that serves a daemon under `/security/alerts/`, one request per connection.
fn prefix_proxy(upstream: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = move |mut client: TcpStream| -> Option<()> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            client.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).ok()?;
        let Some(rest) = head.strip_prefix("GET /security/alerts/") else {
            client.write_all(b"HTTP/1.0 404 Not Found\r\n\r\n").ok()?;
            return None;
        };
        let head = format!("GET /{}", rest.replace("keep-alive", "close"));
        let mut server = TcpStream::connect(&upstream).ok()?;
        server.write_all(head.as_bytes()).ok()?;
        std::io::copy(&mut server, &mut client).ok()?;
        client.shutdown(Shutdown::Both).ok()
    };
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(client));
        }
    });
    address
}

#[test]
fn works_under_a_path_prefix() {
    let Some(mut browser) = Browser::start() else { return };
    let daemon = Daemon::on_log(event(0, "first").as_bytes(), &[]);
    let total = daemon.wait_for_alerts();
    let proxy = prefix_proxy(daemon.address.clone());
    browser.open(&format!("http://{proxy}/security/alerts/"));
    browser.wait(&format!("document.querySelectorAll('.rows > li').length === {total}"));
    browser.wait("[...document.querySelectorAll('.pill')].some((one) => one.textContent === 'live')");
    browser.evaluate("document.querySelector('.rows a').click()").unwrap();
    browser.wait("document.querySelector('main pre[aria-label=Event]') !== null");
    assert!(browser.evaluate("location.pathname").unwrap() == "/security/alerts/");
}
