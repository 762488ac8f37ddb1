//! A real browser, Debian's chromium without a window, driven over WebDriver (W3C
//! Recommendation "WebDriver", 2018).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use super::programs::Program;
use super::skipped;

/// The key under which WebDriver has the id of an element (section 11).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A browser with one page.
pub(crate) struct Browser {
    driver: Program,
    session: String,
}

/// An element of the page.
pub(crate) struct Element<'a> {
    browser: &'a Browser,
    id: String,
}

impl Browser {
    /// Starts one; `None` after a skip has been noted.
    pub(crate) fn start() -> Option<Self> {
        let program = Path::new("/usr/bin/chromedriver");
        if !program.is_file() {
            skipped("browser", "Debian's `chromium-driver` is not installed");
            return None;
        }
        let driver = Program::on_a_port(|port| {
            let mut command = Command::new(program);
            command.arg(format!("--port={port}"));
            command
        });
        let profile = driver.folder().join("profile");
        let options = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--window-size=1000,1200", format!("--user-data-dir={}", profile.display()),
            ] },
        } } });
        let made = request(driver.port, "POST", "/session", Some(&options));
        let session = made["sessionId"].as_str().unwrap().to_owned();
        Some(Self { driver, session })
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let path = format!("/session/{}{path}", self.session);
        request(self.driver.port, method, &path, body)
    }

    /// Opens a page, and waits until it is there.
    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        self.ask("POST", "/url", Some(&json!({ "url": url })));
    }

    /// The first element that a CSS selector finds.
    #[track_caller]
    pub(crate) fn find(&self, selector: &str) -> Element<'_> {
        let how = json!({ "using": "css selector", "value": selector });
        let found = self.ask("POST", "/element", Some(&how));
        let id = found[ELEMENT].as_str().unwrap().to_owned();
        Element { browser: self, id }
    }

    /// Waits until the first element that a selector finds has this text: a click
    /// returns before the page that it leads to is there.
    #[track_caller]
    pub(crate) fn shows(&self, selector: &str, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let how = json!({ "using": "css selector", "value": selector });
            let path = format!("/session/{}", self.session);
            let ask = |method, what: &str, body| {
                try_request(self.driver.port, method, &format!("{path}{what}"), body)
            };
            let found = ask("POST", "/element", Some(&how)).and_then(|found| {
                let id = found[ELEMENT].as_str().unwrap_or_default().to_owned();
                ask("GET", &format!("/element/{id}/text"), None)
            });
            if found == Ok(Value::from(text)) {
                return;
            }
            assert!(
                Instant::now() < until,
                "`{selector}` is {found:?}, not `{text}`"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the page's script engine says of an expression.
    #[track_caller]
    pub(crate) fn evaluate(&self, expression: &str) -> Value {
        let script = json!({ "script": format!("return {expression}"), "args": [] });
        self.ask("POST", "/execute/sync", Some(&script))
    }

    /// Makes pages believe that people like it dark, or light.
    #[track_caller]
    pub(crate) fn prefers(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        let command = json!({
            "cmd": "Emulation.setEmulatedMedia",
            "params": { "features": [feature] },
        });
        self.ask("POST", "/goog/cdp/execute", Some(&command));
    }

    /// Makes the window as large as some screen.
    #[track_caller]
    pub(crate) fn is_as_large_as(&self, width: u32, height: u32) {
        let params = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": params });
        self.ask("POST", "/goog/cdp/execute", Some(&command));
    }

    /// Errors and warnings of pages since the last time, broken policies among them.
    #[track_caller]
    pub(crate) fn complaints(&self) -> Vec<String> {
        let said = self.ask("POST", "/se/log", Some(&json!({ "type": "browser" })));
        let said = said.as_array().unwrap().iter();
        said.map(|entry| entry["message"].to_string()).collect()
    }

    /// A picture of the page, as PNG, in the folder for what tests leave.
    #[track_caller]
    pub(crate) fn picture(&self, name: &str) -> Vec<u8> {
        let picture = self.ask("GET", "/screenshot", None);
        let picture = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap());
        let picture = picture.unwrap();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        std::fs::write(path, &picture).unwrap();
        picture
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session, its driver when it is dropped; where a
        // test has failed, the driver may not answer any more.
        let path = format!("/session/{}", self.session);
        let ended = try_request(self.driver.port, "DELETE", &path, None);
        assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
    }
}

impl Element<'_> {
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        let text = self.ask("GET", "text", None);
        text.as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn click(&self) {
        self.ask("POST", "click", Some(&json!({})));
    }

    /// Writes into a field; for a field of files, the path of one.
    #[track_caller]
    pub(crate) fn write(&self, text: &str) {
        self.ask("POST", "value", Some(&json!({ "text": text })));
    }

    #[track_caller]
    fn ask(&self, method: &str, what: &str, body: Option<&Value>) -> Value {
        let path = format!("/element/{}/{what}", self.id);
        self.browser.ask(method, &path, body)
    }
}

#[track_caller]
fn request(port: u16, method: &str, path: &str, body: Option<&Value>) -> Value {
    let answer = try_request(port, method, path, body);
    answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// What the driver answers, or its error (section 6.6).
fn try_request(port: u16, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Value> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    // It keeps the connection, whatever it is asked for.
    let mut reader = BufReader::new(stream);
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut answer).unwrap() > 0, "{answer}");
    }
    let head = answer.to_ascii_lowercase();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length:"));
    let mut json = vec![0; length.unwrap().trim().parse().unwrap()];
    reader.read_exact(&mut json).unwrap();
    let mut json: Value = serde_json::from_slice(&json).unwrap_or_else(|e| panic!("{e}: {answer}"));
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(json["value"].take()),
        false => Err(json),
    }
}
