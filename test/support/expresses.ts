import express5 from 'express'
import express4 from 'express4'

/** Both Express versions that are supported, for `describe.each`. */
export const EXPRESSES: readonly (readonly [string, typeof express5])[] = [
  ['Express 5', express5],
  ['Express 4', express4],
]
