import { codeIn, readTable } from './markdown.ts'

type Option = readonly [name: string, defaultText: string]

/** The options that a table lists, with the default in its second column; a row may name several. */
export function listedOptions(page: string, title: string): Option[] {
  return readTable(page, title).flatMap(([names = '', value = '']) =>
    codeIn(names).map((name) => [name, value] as const),
  )
}

/** The same from the declaration of an interface. A default in words is left to the table. */
export function declaredOptions(members: readonly { name: string; defaultText: string | null }[]): Option[] {
  return members.map(({ name, defaultText }) => {
    const value = /^(?:'[\w-]+'|null|false|true|\[[^\]]*\]|\{\}|[\d_]+)(?= |$)/.exec(defaultText ?? '')?.[0]
    return [name, value === undefined ? '' : `\`${value}\``]
  })
}

/** By name, since tables have an order of their own. */
export function byName(options: readonly Option[]): Option[] {
  return [...options].sort(([one], [other]) => (one < other ? -1 : 1))
}
