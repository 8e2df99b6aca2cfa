// Says paths of fields, and what services say, as options of the client.

import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { print } from "./probe.mjs";

const module = join(process.argv[2], "dist", "src", "keywords.js");
const { keyword, inKeywords } = await import(pathToFileURL(module));
const { paths, texts } = JSON.parse(process.env.GIVEN);
print({ paths: paths.map(keyword), texts: texts.map(inKeywords) });
