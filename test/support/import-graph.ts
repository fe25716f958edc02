import { readdirSync, readFileSync } from 'node:fs'
import { join, posix, relative, sep } from 'node:path'
import ts from 'typescript'

/**
 * How a module is reached: `static` when it loads with the importing file, `dynamic` through `import()`, `type` when
 * nothing is left of it at run time, `opaque` when the specifier is computed and so cannot be followed.
 */
export type ImportKind = 'static' | 'dynamic' | 'type' | 'opaque'

export interface ImportEdge {
  /** The importing file, relative to the walked folder, with `/` as separator. */
  from: string
  /** A file relative to the walked folder (it may begin with `../`), or a package specifier as written. */
  to: string
  isFile: boolean
  kind: ImportKind
}

/** Every import of every TypeScript file below `folder`. */
export function walkImports(folder: string): ImportEdge[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
    .flatMap((path) =>
      readImports(relative(folder, path).split(sep).join(posix.sep), readFileSync(path, 'utf8')),
    )
}

/** The imports that `text`, the content of the file `from`, makes: types, re-exports and augmentations included. */
export function readImports(from: string, text: string): ImportEdge[] {
  const edges: ImportEdge[] = []
  const add = (specifier: ts.Node | undefined, kind: ImportKind) => {
    if (specifier === undefined) return
    if (!ts.isStringLiteralLike(specifier)) {
      edges.push({ from, to: specifier.getText(), isFile: false, kind: 'opaque' })
      return
    }
    const isFile = specifier.text.startsWith('.')
    const to = isFile ? posix.join(posix.dirname(from), specifier.text) : specifier.text
    edges.push({ from, to, isFile, kind })
  }
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      // `import { type X }` still loads the module; only `import type` leaves nothing behind.
      const onlyTypes = node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword
      add(node.moduleSpecifier, onlyTypes ? 'type' : 'static')
    } else if (ts.isExportDeclaration(node)) {
      add(node.moduleSpecifier, node.isTypeOnly ? 'type' : 'static')
    } else if (ts.isImportEqualsDeclaration(node) && ts.isExternalModuleReference(node.moduleReference)) {
      add(node.moduleReference.expression, node.isTypeOnly ? 'type' : 'static')
    } else if (ts.isImportTypeNode(node)) {
      add(ts.isLiteralTypeNode(node.argument) ? node.argument.literal : node.argument, 'type')
    } else if (ts.isModuleDeclaration(node) && ts.isStringLiteral(node.name)) {
      add(node.name, 'type')
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], 'dynamic')
    } else if (ts.isCallExpression(node) && isRequire(node.expression)) {
      add(node.arguments[0], 'static')
    }
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile(from, text, ts.ScriptTarget.Latest, true))
  return edges
}

function isRequire(callee: ts.Expression): boolean {
  return ts.isIdentifier(callee) && callee.text === 'require'
}

/** The files that lead back to themselves, type imports included, each circle as its files in order; empty where there is none. */
export function findCycles(edges: readonly ImportEdge[]): string[][] {
  const targets = new Map<string, string[]>()
  for (const { from, to, isFile } of edges) {
    if (isFile) targets.set(from, [...(targets.get(from) ?? []), to])
  }
  const isDone = new Set<string>()
  const cycles: string[][] = []
  const visit = (file: string, path: readonly string[]): void => {
    const seenAt = path.indexOf(file)
    if (seenAt >= 0) cycles.push([...path.slice(seenAt), file])
    if (seenAt >= 0 || isDone.has(file)) return
    for (const target of targets.get(file) ?? []) visit(target, [...path, file])
    isDone.add(file)
  }
  for (const file of targets.keys()) visit(file, [])
  return cycles
}
