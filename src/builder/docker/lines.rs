//! What a container says, line by line, and its last word.

use bollard::container::LogOutput;

use crate::builder::{ENDED, Stream, Watcher};

/// Pieces of two streams, put together to lines.
#[derive(Default)]
pub(super) struct Lines {
    out: Vec<u8>,
    err: Vec<u8>,
    /// Whether [`ENDED`] was said.
    has_ended: bool,
}

impl Lines {
    pub(super) fn take(&mut self, said: LogOutput, watcher: &mut dyn Watcher) {
        let (stream, rest) = match &said {
            LogOutput::StdErr { .. } => (Stream::Err, &mut self.err),
            _ => (Stream::Out, &mut self.out),
        };
        rest.extend_from_slice(said.as_ref());
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if stream == Stream::Out && line == ENDED {
                self.has_ended = true;
            } else {
                watcher.line(stream, line);
            }
        }
    }

    /// Hands on what is left, and tells whether the command's last word was among it.
    pub(super) fn end(self, watcher: &mut dyn Watcher) -> bool {
        for (stream, rest) in [(Stream::Out, self.out), (Stream::Err, self.err)] {
            if !rest.is_empty() {
                watcher.line(stream, &String::from_utf8_lossy(&rest));
            }
        }
        self.has_ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Said(Vec<(Stream, String)>);

    impl Watcher for Said {
        fn line(&mut self, stream: Stream, line: &str) {
            self.0.push((stream, line.to_owned()));
        }
        fn is_cancelled(&self) -> bool {
            false
        }
    }

    #[test]
    fn pieces_make_lines_by_stream() {
        let out = |text: &'static str| LogOutput::StdOut {
            message: text.into(),
        };
        let err = |text: &'static str| LogOutput::StdErr {
            message: text.into(),
        };
        let mut said = Said(Vec::new());
        let mut lines = Lines::default();
        for piece in [out("a"), err("x\ny"), out("b\r\nc")] {
            lines.take(piece, &mut said);
        }
        assert!(!lines.end(&mut said));
        let said: Vec<(Stream, &str)> = said.0.iter().map(|(s, l)| (*s, l.as_str())).collect();
        let expected = [
            (Stream::Err, "x"),
            (Stream::Out, "ab"),
            (Stream::Out, "c"),
            (Stream::Err, "y"),
        ];
        assert_eq!(said, expected);
    }

    /// A whole line of the one stream that only the command itself writes to.
    #[test]
    fn the_last_word_is_heard_and_not_handed_on() {
        let word = format!("{ENDED}\n");
        let cases = [
            (true, word.clone()),
            (false, ENDED.to_owned()),
            (false, format!("it {word}")),
        ];
        for (is_word, text) in cases {
            let mut said = Said(Vec::new());
            let mut lines = Lines::default();
            let message = text.clone().into();
            lines.take(LogOutput::StdOut { message }, &mut said);
            assert_eq!(lines.end(&mut said), is_word, "{text}");
            assert_eq!(said.0.is_empty(), is_word, "{text}");
        }
        let mut lines = Lines::default();
        let message = word.into();
        lines.take(LogOutput::StdErr { message }, &mut Said(Vec::new()));
        assert!(!lines.end(&mut Said(Vec::new())));
    }
}
