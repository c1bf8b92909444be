//! A database of a benchmark on a PostgreSQL server.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// An empty database.
pub(crate) struct Database {
    server: String,
    name: String,
}

impl Database {
    /// Creates a database on the server of a URL.
    pub(crate) async fn create(server: &str, name: &str) -> Self {
        let database = Self {
            server: server.to_owned(),
            name: format!("replyhook_bench_{name}_{}", std::process::id()),
        };
        // Left by a run with the same process ID that was killed.
        database.drop_if_exists().await;
        let create = format!("CREATE DATABASE {} TEMPLATE template0", database.name);
        database.run(create).await;
        database
    }

    pub(crate) fn url(&self) -> String {
        let (base, _) = self
            .server
            .rsplit_once('/')
            .expect("the URL names a database");
        format!("{base}/{}", self.name)
    }

    /// Deletes the database, also while a server is connected to it.
    pub(crate) async fn remove(self) {
        self.drop_if_exists().await;
    }

    async fn drop_if_exists(&self) {
        self.run(format!(
            "DROP DATABASE IF EXISTS {} WITH (FORCE)",
            self.name
        ))
        .await;
    }

    async fn run(&self, sql: String) {
        let options: PgConnectOptions = self.server.parse().expect("a URL of PostgreSQL");
        let db = PgConnection::connect_with(&options).await;
        let mut db = db.expect("PostgreSQL accepts a connection");
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut db).await;
        done.expect("databases can be created and dropped");
    }
}
