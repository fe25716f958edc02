import { LatchkeyError } from 'latchkey'
import tsconfig from '../../../tsconfig.json' with { type: 'json' }
import { readPublicTypes } from '../compiler.ts'

/** Every option of every public options type by `door type.option`, with its documented default or null. */
export function readDocumentedOptions(): Record<string, string | null> {
  const rows: [string, string | null][] = []
  for (const door of Object.keys(tsconfig.compilerOptions.paths)) {
    const types = readPublicTypes(door)
    for (const type of types
      .names()
      .filter((name) => /(?:Options|Settings|ImportedKey|RateLimit)$/.test(name))) {
      for (const { name, defaultText } of types.members(type))
        rows.push([`${door} ${type}.${name}`, valueIn(defaultText)])
    }
  }
  return Object.fromEntries(rows)
}

/** Every error code with its status and title. */
export function readErrorCodes(): Record<string, unknown> {
  const codes = readPublicTypes('latchkey').literals('ErrorCode')
  return Object.fromEntries(
    codes.map((code) => {
      const { status, message } = new LatchkeyError(code as never)
      return [code, { status, title: message }]
    }),
  )
}

/** `null (never)` is `null`: what stands in brackets explains the value, and may be put in other words. */
function valueIn(text: string | null): string | null {
  return text === null ? null : text.replace(/\s*\(.*\)$/s, '').trim()
}
