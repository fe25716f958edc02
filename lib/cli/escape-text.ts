/** Control characters, invisible ones, and those that change the direction of what follows. */
const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu
/** The same in JSON, whose own line breaks stay. */
const HIDDEN_IN_JSON = /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

/**
 * A text as a terminal may show it. Names come from users: an escape sequence in one could clear the screen, or make a revoked
 * key look active.
 */
export function escapeText(text: string): string {
  return text.replace(HIDDEN, (character) => {
    if (character === '\n') return '\\n'
    return `\\u{${(character.codePointAt(0) as number).toString(16)}}`
  })
}

/** JSON with the same characters escaped: it means the same, and may be shown. */
export function toSafeJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, null, indent).replace(HIDDEN_IN_JSON, (character) =>
    [...Array(character.length).keys()]
      .map((unit) => `\\u${character.charCodeAt(unit).toString(16).padStart(4, '0')}`)
      .join(''),
  )
}
