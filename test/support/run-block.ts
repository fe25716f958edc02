import { runInThisContext } from 'node:vm'
import ts from 'typescript'

type Block = (
  scope: Record<string, unknown>,
  load: (name: string) => Promise<object>,
) => Promise<Record<string, unknown>>

/**
 * Runs a block of a page, with what it takes from its application in `scope`, and returns what it declares under
 * `wanted`.
 */
export function runBlock(
  text: string,
  scope: Record<string, unknown>,
  wanted: readonly string[] = [],
): Promise<Record<string, unknown>> {
  const code = withoutImports(text)
  const { outputText } = ts.transpileModule(
    `(async ({ ${Object.keys(scope).join(', ')} }, load) => {\n${code}\nreturn { ${wanted.join(', ')} }\n})`,
    {
      compilerOptions: {
        target: ts.ScriptTarget.ESNext,
        module: ts.ModuleKind.ESNext,
        experimentalDecorators: true,
      },
    },
  )
  const run = runInThisContext(outputText) as Block
  return run(scope, (name) => import(name))
}

/** A block with its imports written as calls of `load`, which is asked by name and answers the promise of a module. */
export function withoutImports(text: string): string {
  return text.replace(/^import (.+) from ('[^']+')$/gm, (_line, names: string, from: string) => {
    const [, whole, , parts = ''] = /^(\w+)?(, )?(?:\{ (.+) \})?$/.exec(names) ?? []
    const values = parts.split(', ').filter((name) => name !== '' && !name.startsWith('type '))
    const members = [...(whole ? [`default: ${whole}`] : []), ...values]
    return `const { ${members.join(', ')} } = await load(${from})`
  })
}
