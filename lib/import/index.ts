export { type BcryptFormatOptions, type BcryptRow, bcryptFormat } from './bcrypt.ts'
export {
  type BetterAuthFormatOptions,
  type BetterAuthRow,
  betterAuthFormat,
} from './better-auth.ts'
export {
  type DjangoApiKeyFormatOptions,
  type DjangoApiKeyRow,
  djangoApiKeyFormat,
} from './django-api-key.ts'
export type { HashedRow } from './hashed-row.ts'
export { type PlainTextFormatOptions, type PlainTextRow, plainTextFormat } from './plain-text.ts'
export { type PrefixedApiKeyRow, prefixedApiKeyFormat } from './prefixed-api-key.ts'
export { type SanctumFormatOptions, type SanctumRow, sanctumFormat } from './sanctum.ts'
export { unkeyFormat } from './unkey.ts'
