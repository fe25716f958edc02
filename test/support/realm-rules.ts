import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'

/** Classes whose instances may come from another copy of this package: their brand tells. */
const BRANDED = ['LatchkeyError', 'ApiKeysClientError']

/** Functions that go by the classes of one realm; `lib/internal` has others instead. */
const FUNCTIONS = ['structuredClone', 'isDeepStrictEqual', 'isBuffer']

/** What in the files below `folder` fails with values of another realm, each as one sentence. */
export function findRealmTraps(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .sort()
    .flatMap((name) => realmTrapsIn(name, readFileSync(join(folder, name), 'utf8')))
}

/** The same for one file and its text. */
export function realmTrapsIn(name: string, text: string): string[] {
  const source = ts.createSourceFile(name, text, ts.ScriptTarget.Latest, true)
  const own = ownNames(source)
  const traps: string[] = []
  const report = (node: ts.Node) => {
    const { line } = source.getLineAndCharacterOfPosition(node.getStart())
    traps.push(`${name}:${line + 1}: ${node.getText()}`)
  }
  const visit = (node: ts.Node): void => {
    if (ts.isBinaryExpression(node)) {
      const { operatorToken, left, right } = node
      if (operatorToken.kind === ts.SyntaxKind.InstanceOfKeyword) {
        const isOwn = ts.isIdentifier(right) && own.has(right.text) && !BRANDED.includes(right.text)
        if (!isOwn) report(node)
      } else if (/^[!=]==?$/.test(operatorToken.getText()) && [left, right].some(isClassOf)) report(node)
    }
    if (ts.isIdentifier(node) && FUNCTIONS.includes(node.text)) report(node)
    ts.forEachChild(node, visit)
  }
  visit(source)
  return traps
}

/** What a file declares as a class or imports from a file beside it. */
function ownNames(source: ts.SourceFile): Set<string> {
  const names = new Set<string>()
  for (const statement of source.statements) {
    if (ts.isClassDeclaration(statement) && statement.name) names.add(statement.name.text)
    if (!ts.isImportDeclaration(statement)) continue
    const bindings = statement.importClause?.namedBindings
    const isFile = (statement.moduleSpecifier as ts.StringLiteral).text.startsWith('.')
    if (!isFile || !bindings || !ts.isNamedImports(bindings)) continue
    for (const element of bindings.elements) names.add(element.name.text)
  }
  return names
}

/** `x.constructor`, or `Date.prototype`. */
function isClassOf(node: ts.Expression): boolean {
  return ts.isPropertyAccessExpression(node) && ['constructor', 'prototype'].includes(node.name.text)
}
