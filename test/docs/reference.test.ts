import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'

const readJson = (path: string) => JSON.parse(readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8'))

it('has a page in the reference for every door', () => {
  const doors: string[] = Object.values<string[]>(readJson('tsconfig.json').compilerOptions.paths).flat()
  expect(
    readJson('typedoc.json')
      .entryPoints.map((path: string) => `./${path}`)
      .sort(),
  ).toEqual(doors.sort())
})
