//! The service's state: one SQLite table of notes, stored compressed.
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, PartialEq)]
pub struct Note {
    pub id: i64,
    pub text: String,
}

pub fn open() -> rusqlite::Result<rusqlite::Connection> {
    let db = rusqlite::Connection::open_in_memory()?;
    db.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text BLOB NOT NULL)", [])?;
    Ok(db)
}

pub fn add(db: &rusqlite::Connection, text: &str) -> rusqlite::Result<i64> {
    let packed = zstd::encode_all(text.as_bytes(), 3).expect("memory");
    db.execute("INSERT INTO notes (text) VALUES (?1)", [packed])?;
    Ok(db.last_insert_rowid())
}

pub fn get(db: &rusqlite::Connection, id: i64) -> rusqlite::Result<Note> {
    let packed: Vec<u8> = db.query_row("SELECT text FROM notes WHERE id = ?1", [id], |r| r.get(0))?;
    let text = String::from_utf8(zstd::decode_all(&packed[..]).expect("valid")).expect("utf-8");
    Ok(Note { id, text })
}

#[cfg(test)]
mod tests {
    #[test]
    fn round_trip() {
        let db = super::open().unwrap();
        let id = super::add(&db, "hello").unwrap();
        assert_eq!(super::get(&db, id).unwrap().text, "hello");
    }
}
