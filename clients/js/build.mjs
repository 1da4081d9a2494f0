// Builds the npm package in a folder: `node build.mjs FOLDER`. The modules are those that the server serves, with the types that
// TypeScript reads from their comments; the version is the server's.

import { execFileSync } from "node:child_process";
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const server = join(here, "..", "..", "service", "portrait");
const compiler = join(here, "..", "..", "tests", "node", "node_modules", ".bin", "tsc");
if (process.argv.length !== 3) throw new Error("got no folder, expected node build.mjs FOLDER");
const target = resolve(process.argv[2]);

rmSync(target, { recursive: true, force: true });
cpSync(join(server, "web", "portrait"), join(target, "portrait"), { recursive: true });
// The server's module names its parts by their paths on the server.
const index = readFileSync(join(server, "web", "portrait.js"), "utf8").replaceAll('"/web/portrait/', '"./portrait/');
writeFileSync(join(target, "index.js"), index.replace('"/portrait.js"', '"portrait-client"'));
for (const name of ["README.md", "LICENSE"]) cpSync(join(here, name), join(target, name));

const [, version] = readFileSync(join(server, "__init__.py"), "utf8").match(/^__version__ = "(.+)"$/m);
const description = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
writeFileSync(join(target, "package.json"), `${JSON.stringify({ ...description, version }, null, 2)}\n`);

const sources = ["index.js", ...readdirSync(join(target, "portrait")).map((name) => join("portrait", name))];
const options = ["--allowJs", "--declaration", "--emitDeclarationOnly", "--strict", "--target", "es2023", "--module", "es2022"];
const library = ["--moduleResolution", "bundler", "--lib", "es2023,dom,dom.iterable,dom.asynciterable"];
execFileSync(compiler, [...options, ...library, ...sources.filter((name) => name.endsWith(".js"))], {
  cwd: target,
  stdio: "inherit",
});
