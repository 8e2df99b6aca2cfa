// Lists what the package exports: the members of each class and interface, and the options of
// each method, as its compiler sees them.

import { createRequire } from "node:module";
import { join } from "node:path";

const folder = process.argv[2];
const ts = createRequire(join(folder, "package.json"))("typescript");
const entry = join(folder, "dist", "src", "index.d.ts");
const program = ts.createProgram([entry], { strict: true, skipLibCheck: true, target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.NodeNext });
const checker = program.getTypeChecker();

const isPublic = (symbol) => !/^(#|__|_$)/.test(symbol.name) && !(ts.getCombinedModifierFlags(symbol.valueDeclaration ?? symbol.declarations[0]) & ts.ModifierFlags.Private);
const propertiesOf = (type) => checker.getPropertiesOfType(type).filter(isPublic);
const parts = (type) => (type.isUnion() ? type.types : [type]).filter((part) => !(part.flags & ts.TypeFlags.Undefined));

/** The options of a method: the properties of what its last parameters take as an object. */
function options(symbol) {
  const type = checker.getTypeOfSymbol(symbol);
  const names = new Set();
  for (const signature of parts(type).flatMap((part) => part.getCallSignatures())) {
    for (const parameter of signature.getParameters()) {
      names.add(parameter.name);
      if (parameter.name !== "options") continue;
      for (const part of parts(checker.getTypeOfSymbol(parameter))) propertiesOf(part).forEach(({ name }) => names.add(name));
    }
  }
  return [...names];
}

const module = checker.getSymbolAtLocation(program.getSourceFile(entry));
const found = {};
for (const exported of checker.getExportsOfModule(module)) {
  const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
  const members = propertiesOf(checker.getDeclaredTypeOfSymbol(symbol));
  found[exported.name] = Object.fromEntries(members.map((member) => [member.name, options(member)]));
}
console.log(JSON.stringify(found));
