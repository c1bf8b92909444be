//! Temporary file that a child process writes its output to.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::Stdio;

/// Output of a child process.
// Not a pipe: what a thread has not yet read from one would be missing here, so that a test for a line could fail by chance, and
// a test for the absence of one pass by chance.
pub struct OutputFile(File);

impl OutputFile {
    pub fn new() -> Self {
        Self(tempfile::tempfile().unwrap())
    }

    /// Returns the file as stdout or stderr of a child. If it is both, the child appends to one position.
    pub fn stdio(&self) -> Stdio {
        self.0.try_clone().unwrap().into()
    }

    /// Returns all whole lines that were written.
    pub fn text(&self) -> String {
        let length = self.0.metadata().unwrap().len();
        let mut text = vec![0; usize::try_from(length).unwrap()];
        // Not by a seek: the child writes at the position of the same open file.
        self.0.read_exact_at(&mut text, 0).unwrap();
        let end = text.iter().rposition(|byte| *byte == b'\n');
        text.truncate(end.map_or(0, |end| end + 1));
        String::from_utf8_lossy(&text).into_owned()
    }
}
