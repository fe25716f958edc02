import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import tsconfig from '../../tsconfig.json' with { type: 'json' }

const root = fileURLToPath(new URL('../../', import.meta.url))

/** Compiles files that exist only in memory, by path from the root, as strictly as the repository itself. */
export function compile(files: Record<string, string>): string[] {
  const program = createProgram(files)
  return Object.keys(files)
    .map((file) => program.getSourceFile(root + file) as ts.SourceFile)
    .flatMap((source) => [
      ...program.getSyntacticDiagnostics(source),
      ...program.getSemanticDiagnostics(source),
    ])
    .map(({ file, start, messageText }) => {
      const line = file ? file.getLineAndCharacterOfPosition(start ?? 0).line + 1 : 0
      return `${file?.fileName.slice(root.length)}:${line} ${ts.flattenDiagnosticMessageText(messageText, '\n')}`
    })
}

/** Answers questions about what a door exports. */
export interface PublicTypes {
  /** The names of all exported types. */
  names(): string[]
  /** The strings of a union, or those of one member of a union of objects, which not all of them need to have. */
  literals(name: string, member?: string): string[]
  /** The members of an interface; those of an object member as `cache.maxAgeMs`. With the text of their `@default`. */
  members(name: string): { name: string; defaultText: string | null }[]
}

const DOORS = Object.keys(tsconfig.compilerOptions.paths)

const questionsOf = (door: string) => `test/docs/questions-${DOORS.indexOf(door)}.ts`

/** One program for all doors: most of them share most of their types. */
let ofDoors: ts.Program | undefined

export function readPublicTypes(door: string): PublicTypes {
  ofDoors ??= createProgram(
    Object.fromEntries(DOORS.map((one) => [questionsOf(one), `export * from '${one}'`])),
  )
  const checker = ofDoors.getTypeChecker()
  const source = ofDoors.getSourceFile(root + questionsOf(door)) as ts.SourceFile
  const module = checker.getSymbolAtLocation(source) as ts.Symbol
  const exported = new Map(checker.getExportsOfModule(module).map((symbol) => [symbol.name, symbol]))

  function typeOf(name: string): ts.Type {
    const symbol = exported.get(name)
    if (!symbol) throw new Error(`${door} exports no "${name}"`)
    const isAlias = (symbol.flags & ts.SymbolFlags.Alias) !== 0
    return checker.getDeclaredTypeOfSymbol(isAlias ? checker.getAliasedSymbol(symbol) : symbol)
  }

  function membersOf(type: ts.Type, path: string): ReturnType<PublicTypes['members']> {
    return checker
      .getNonNullableType(type)
      .getProperties()
      .flatMap((symbol) => {
        const name = path + symbol.name
        // A member of a union is declared more than once.
        const declared = (symbol.valueDeclaration ?? symbol.declarations?.[0]) as ts.Declaration
        // An object that is spelled out in place is a group of members.
        const group = ts.isPropertySignature(declared) && declared.type && groupIn(declared.type)
        if (group) return membersOf(checker.getTypeFromTypeNode(group), `${name}.`)
        const tag = symbol.getJsDocTags(checker).find((each) => each.name === 'default')
        return [{ name, defaultText: tag ? ts.displayPartsToString(tag.text) : null }]
      })
  }

  return {
    names: () => [...exported.keys()].filter((name) => typeOf(name).getProperties().length > 0),
    literals(name, member) {
      const parts = partsOf(typeOf(name))
      const types = member === undefined ? parts : parts.flatMap((part) => typesOfMember(part, member))
      return types.map((type) => {
        if (!type.isStringLiteral()) throw new Error(`"${name}" is not made of strings`)
        return type.value
      })
    },
    members: (name) => membersOf(typeOf(name), ''),
  }

  /** None where the type has no such member. */
  function typesOfMember(type: ts.Type, member: string): ts.Type[] {
    const symbol = type.getProperty(member)
    return symbol ? partsOf(checker.getTypeOfSymbol(symbol)) : []
  }
}

/** The object that is spelled out as the type of a member, which `false` may switch off. */
function groupIn(type: ts.TypeNode): ts.TypeNode | undefined {
  if (!ts.isUnionTypeNode(type)) return ts.isTypeLiteralNode(type) ? type : undefined
  const others = type.types.filter((part) => part.getText() !== 'false')
  return others.length === 1 && others[0] ? groupIn(others[0]) : undefined
}

function partsOf(type: ts.Type): ts.Type[] {
  return type.isUnion() ? type.types : [type]
}

/** Files that exist are parsed once for all programs of a test file. */
const parsed = new Map<string, ts.SourceFile | undefined>()

function createProgram(files: Record<string, string>): ts.Program {
  const { config } = ts.readConfigFile(`${root}tsconfig.json`, ts.sys.readFile)
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
  const host = ts.createCompilerHost(options)
  const virtual = new Map(Object.entries(files).map(([path, text]) => [root + path, text]))
  const { fileExists, readFile, getSourceFile } = host
  host.fileExists = (path) => virtual.has(path) || fileExists(path)
  host.readFile = (path) => virtual.get(path) ?? readFile(path)
  host.getSourceFile = (path, ...rest) => {
    const text = virtual.get(path)
    if (text !== undefined) {
      return ts.createSourceFile(path, text, ...(rest.slice(0, 1) as [ts.CreateSourceFileOptions]), true)
    }
    if (!parsed.has(path)) parsed.set(path, getSourceFile(path, ...rest))
    return parsed.get(path)
  }
  return ts.createProgram([...virtual.keys()], options, host)
}
