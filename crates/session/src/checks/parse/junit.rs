//! JUnit XML, as pytest, node, Maven's surefire, Gradle and many others write it. There is no one specification; what
//! is read here is what they share: `testcase` elements with a `failure` or `error` in them.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::found::{Found, NAME_BYTES_MAX};
use super::js;
use super::text::{Text, place};
use crate::checks::{DIAGNOSTICS_MAX, Diagnostic, Severity, clip};

/// Elements inside each other; reports have four.
const DEPTH_MAX: usize = 32;

pub(super) fn read(text: &Text, found: &mut Found<'_>) {
    for stream in text.streams() {
        if stream.contains("<testcase")
            && let Some(at) = stream.find("<?xml").or_else(|| stream.find("<testsuite"))
        {
            read_document(&stream[at..], found);
        }
    }
}

#[derive(Default)]
struct Case {
    suites: String,
    class: String,
    name: String,
    file: Option<String>,
    line: Option<u32>,
    /// The `message` attribute of its failure, once it has one.
    failure: Option<String>,
    /// Skipped or to do: whatever else it says, it has not failed.
    skipped: bool,
    text: String,
}

/// Reads until the document ends or is broken; what came before counts.
fn read_document(xml: &str, found: &mut Found<'_>) {
    let mut reader = Reader::from_str(xml);
    let mut suites: Vec<String> = Vec::new();
    let mut case: Option<Case> = None;
    let mut inside_failure = false;
    let mut failures = 0;
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(element) => match element.local_name().as_ref() {
                b"testsuite" if suites.len() < DEPTH_MAX => {
                    suites.push(clip(&attribute(&element, "name").unwrap_or_default(), NAME_BYTES_MAX));
                }
                b"testcase" => case = Some(Case::of(&element, &suites)),
                b"failure" | b"error" => {
                    inside_failure = true;
                    fail(&mut case, &element);
                }
                b"skipped" => skip(&mut case),
                _ => {}
            },
            Event::Empty(element) if element.local_name().as_ref() == b"skipped" => skip(&mut case),
            Event::Empty(element) if matches!(element.local_name().as_ref(), b"failure" | b"error") => {
                fail(&mut case, &element);
            }
            Event::Text(text) if inside_failure => add(&mut case, &text.decode().unwrap_or_default()),
            Event::CData(text) if inside_failure => add(&mut case, &text.decode().unwrap_or_default()),
            // Text comes in pieces, with the entities between them.
            Event::GeneralRef(entity) if inside_failure => {
                let name = entity.decode().unwrap_or_default();
                let character = entity.resolve_char_ref().ok().flatten().map(String::from);
                let known = || quick_xml::escape::resolve_xml_entity(&name).map(str::to_owned);
                add(&mut case, &character.or_else(known).unwrap_or_default());
            }
            Event::End(element) => match element.local_name().as_ref() {
                b"testsuite" => drop(suites.pop()),
                b"failure" | b"error" => inside_failure = false,
                b"testcase" => {
                    if let Some(case) = case.take().filter(|case| case.failure.is_some() && !case.skipped) {
                        case.push(found);
                        failures += 1;
                    }
                }
                _ => {}
            },
            Event::Eof => break,
            _ => {}
        }
        if failures > DIAGNOSTICS_MAX {
            break;
        }
    }
}

fn fail(case: &mut Option<Case>, element: &BytesStart<'_>) {
    if let Some(case) = case {
        case.failure.get_or_insert_with(|| attribute(element, "message").unwrap_or_default());
    }
}

fn skip(case: &mut Option<Case>) {
    if let Some(case) = case {
        case.skipped = true;
    }
}

fn add(case: &mut Option<Case>, text: &str) {
    if let Some(case) = case {
        case.text.push_str(text);
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = element.try_get_attribute(name).ok().flatten()?;
    attribute.unescape_value().ok().map(std::borrow::Cow::into_owned)
}

impl Case {
    fn of(element: &BytesStart<'_>, suites: &[String]) -> Self {
        let number = |name: &str| attribute(element, name)?.parse().ok().filter(|line| *line > 0);
        Self {
            suites: suites.join(" > "),
            class: attribute(element, "classname").unwrap_or_default(),
            name: attribute(element, "name").unwrap_or_default(),
            file: attribute(element, "file").filter(|file| !file.is_empty()),
            line: number("line"),
            ..Self::default()
        }
    }

    fn push(self, found: &mut Found<'_>) {
        let message = self.failure.unwrap_or_default();
        let message = if message.trim().is_empty() { self.text.trim().to_owned() } else { message };
        let frames = self.text.lines().filter(|line| js::is_frame(line));
        let named = || {
            let mut own =
                self.text.lines().filter_map(place).filter(|(file, ..)| !file.contains(' ') && found.is_own(file));
            own.next_back().map(|(file, line, column, _)| (file, line, column))
        };
        let at = js::own_frame(frames, found).or_else(named);
        let at = at.map(|(file, line, column)| (Some(file.to_owned()), Some(line), column));
        let (file, line, column) = at.unwrap_or((self.file, self.line, None));
        // node puts its own word for every class there, and what tells tests apart in the suites.
        let test = match self.class.as_str() {
            "" | "test" => {
                [self.suites, self.name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" > ")
            }
            class => format!("{class}.{}", self.name),
        };
        let message = if message.is_empty() { "failed".to_owned() } else { message };
        let diagnostic = Diagnostic { test: Some(test), ..Diagnostic::new(Severity::Error, message) };
        found.push(Diagnostic { file, line, column, ..diagnostic });
    }
}
