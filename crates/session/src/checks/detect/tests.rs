use super::*;

/// Lists `name: command [← prepare]` for a repository with these files.
#[track_caller]
fn check(files: &[(&str, &str)], expect: &[&str]) {
    let names: Vec<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
    let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
    let found: Vec<String> = detect(&names, read)
        .into_iter()
        .map(|check| {
            let place = if check.directory.is_empty() { String::new() } else { format!(" in {}", check.directory) };
            let prepare = check.prepare.map(|prepare| format!(" ← {prepare}")).unwrap_or_default();
            format!("{}: {}{place}{prepare}", check.name, check.command)
        })
        .collect();
    assert_eq!(found, expect);
}

#[test]
fn a_repository_without_proof_has_no_checks() {
    check(&[], &[]);
    check(&[("README.md", ""), ("src/main.c", "")], &[]);
}

#[test]
fn cargo_tests_all_members_of_a_workspace() {
    check(&[("Cargo.toml", "[package]\nname = 'a'")], &["test: cargo test --no-fail-fast"]);
    check(&[("Cargo.toml", "[workspace]\nmembers = ['a']")], &["test: cargo test --workspace --no-fail-fast"]);
    check(&[("Cargo.toml", "not toml [")], &[]);
}

#[test]
fn npm_runs_the_scripts_that_there_are() {
    let manifest = r#"{"scripts": {"test": "node --test", "lint": "eslint .", "type-check": "tsc"}, "devDependencies": {"eslint": "9"}}"#;
    let prepare = "[ -d node_modules ] || npm ci --no-audit --no-fund";
    check(
        &[("package.json", manifest), ("package-lock.json", "{}")],
        &[
            &format!("typecheck: npm run type-check ← {prepare}"),
            &format!("lint: npm run lint ← {prepare}"),
            &format!("test: npm test ← {prepare}"),
        ],
    );
}

#[test]
fn the_placeholder_of_npm_init_is_no_test() {
    check(&[("package.json", r#"{"scripts": {"test": "echo \"Error: no test specified\" && exit 1"}}"#)], &[]);
}

#[test]
fn a_script_that_watches_or_mends_is_not_run() {
    check(&[("package.json", r#"{"scripts": {"test": "jest --watch", "lint": "eslint --fix ."}}"#)], &[]);
    check(&[("package.json", r#"{"scripts": {"test": "ng test --watch=false"}}"#)], &["test: npm test"]);
}

#[test]
fn a_linter_that_the_tests_run_is_not_run_twice() {
    check(
        &[("package.json", r#"{"scripts": {"test": "npm run lint && tape test.js", "lint": "eslint ."}}"#)],
        &["test: npm test"],
    );
}

#[test]
fn the_lock_file_tells_the_package_manager_and_its_field_overrules() {
    let test = r#"{"scripts": {"test": "vitest run"}, "dependencies": {"a": "1"}}"#;
    let pnpm = "test: pnpm run test ← [ -d node_modules ] || pnpm install --frozen-lockfile";
    check(&[("package.json", test), ("pnpm-lock.yaml", "")], &[pnpm]);
    check(
        &[("package.json", test), ("yarn.lock", "")],
        &["test: yarn run test ← [ -d node_modules ] || yarn install --frozen-lockfile"],
    );
    check(
        &[("package.json", test), ("yarn.lock", ""), (".yarnrc.yml", "")],
        &["test: yarn run test ← [ -d node_modules ] || [ -f .pnp.cjs ] || yarn install --immutable"],
    );
    check(
        &[("package.json", test), ("bun.lock", "")],
        &["test: bun run test ← [ -d node_modules ] || bun install --frozen-lockfile"],
    );
    let named = r#"{"packageManager": "pnpm@9.1.0", "scripts": {"test": "vitest run"}, "dependencies": {"a": "1"}}"#;
    check(&[("package.json", named), ("package-lock.json", ""), ("pnpm-lock.yaml", "")], &[pnpm]);
    check(
        &[("package.json", test)],
        &["test: npm test ← [ -d node_modules ] || npm install --no-package-lock --no-audit --no-fund"],
    );
}

#[test]
fn a_package_without_dependencies_needs_no_preparation() {
    check(&[("package.json", r#"{"scripts": {"test": "node test.js"}}"#)], &["test: npm test"]);
}

#[test]
fn python_tests_run_with_what_they_are_written_for() {
    let pytest = "test: python3 -m pytest ← python3 -c 'import pytest' 2>/dev/null || PIP_BREAK_SYSTEM_PACKAGES=1 \
                  python3 -m pip install --quiet --disable-pip-version-check pytest";
    check(&[("test_a.py", "def test_a(): pass")], &[pytest]);
    check(&[("a_test.py", "import unittest"), ("conftest.py", "")], &[pytest]);
    check(&[("test_a.py", "import unittest")], &["test: python3 -m unittest discover"]);
    check(
        &[("tests/test_a.py", "from unittest import TestCase"), ("tests/__init__.py", "")],
        &["test: python3 -m unittest discover"],
    );
    check(&[("tests/test_a.py", "import unittest")], &["test: python3 -m unittest discover -s tests"]);
    check(&[("a.py", ""), ("pyproject.toml", "[tool.pytest.ini_options]")], &[]);
}

#[test]
fn python_installs_the_project_and_its_extra_for_tests() {
    let pip = "PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --disable-pip-version-check";
    check(
        &[
            ("pyproject.toml", "[project]\nname = 'a'\n[project.optional-dependencies]\ntest = ['pytest']"),
            ("requirements.txt", "attrs"),
            ("tests/test_a.py", ""),
        ],
        &[&format!("test: python3 -m pytest ← {pip} pytest -r requirements.txt -e '.[test]'")],
    );
    check(
        &[("uv.lock", ""), ("pyproject.toml", "[project]"), ("test_a.py", "import pytest")],
        &["test: uv run python -m pytest ← uv sync --all-extras --frozen"],
    );
}

#[test]
fn go_vets_and_tests_where_there_are_tests() {
    check(&[("go.mod", "module a")], &["vet: go vet ./..."]);
    check(&[("go.mod", "module a"), ("b/c_test.go", "")], &["vet: go vet ./...", "test: go test ./..."]);
}

#[test]
fn java_prefers_the_wrapper() {
    check(&[("pom.xml", "")], &["test: mvn --batch-mode --no-transfer-progress test"]);
    check(&[("pom.xml", ""), ("mvnw", "")], &["test: sh ./mvnw --batch-mode --no-transfer-progress test"]);
    check(
        &[("build.gradle.kts", ""), ("gradlew", "")],
        &["test: sh ./gradlew --no-daemon --console=plain --continue test"],
    );
}

#[test]
fn make_is_asked_where_nothing_else_is_known() {
    check(&[("Makefile", "all:\n\tcc a.c\n\ncheck: all\n\t./a\n")], &["test: make check"]);
    check(&[("Makefile", "test check: all\n")], &["test: make test"]);
    check(&[("Makefile", "test := yes\ntests: all\n\ttest: no\n")], &[]);
    check(&[("Makefile", "test:\n"), ("go.mod", "")], &["vet: go vet ./..."]);
}

#[test]
fn several_tools_get_names_that_tell_them_apart() {
    check(
        &[("Cargo.toml", "[package]"), ("package.json", r#"{"scripts": {"test": "node t.js", "lint": "eslint ."}}"#)],
        &["cargo test: cargo test --no-fail-fast", "lint: npm run lint", "npm test: npm test"],
    );
}

#[test]
fn folders_are_looked_at_where_the_top_has_nothing() {
    let test = r#"{"scripts": {"test": "node t.js"}}"#;
    check(
        &[("web/package.json", test), ("web/inner/package.json", test), ("api/go.mod", ""), ("a/b/c/go.mod", "")],
        &["vet: go vet ./... in api", "test: npm test in web"],
    );
    check(
        &[("web/package.json", test), ("api/Cargo.toml", "[package]")],
        &["cargo test in api: cargo test --no-fail-fast in api", "npm test in web: npm test in web"],
    );
}
